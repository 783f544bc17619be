// One component a type of panel, by Grafana's own published components.
import { VizOrientation, getDisplayValueAlignmentFactors, getFieldDisplayValues } from '@grafana/data';
import { BarGauge, BigValue, TimeSeries, VizRepeater, useTheme2 } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

const same = (text) => text;

export function displays(panel, frames, theme) {
  return getFieldDisplayValues({
    fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables: same, theme, data: frames, timeZone: 'utc',
  });
}

function Curves({ panel, frames, range, width, height }) {
  return (
    <TimeSeries
      frames={frames} timeRange={range} timeZone="utc" width={width} height={height}
      legend={panel.options.legend} options={panel.options} replaceVariables={same} dataLinkPostProcessor={() => undefined}
    />
  );
}

function Repeated({ panel, frames, width, height, orientation, one }) {
  const theme = useTheme2();
  return (
    <VizRepeater
      getValues={() => displays(panel, frames, theme)}
      getAlignmentFactors={(values) => getDisplayValueAlignmentFactors(values)} source={frames} width={width} height={height} orientation={orientation}
      renderCounter={0} itemSpacing={8} minVizHeight={16} minVizWidth={8} maxVizHeight={300} autoGrid
      renderValue={(all) => one({ ...all, theme })}
    />
  );
}

function Numbers(properties) {
  const { options } = properties.panel;
  return (
    <Repeated
      {...properties} orientation={VizOrientation.Auto}
      one={({ value, width, height, count, theme }) => (
        <BigValue
          value={value.display} count={count} width={width} height={height} theme={theme} justifyMode={options.justifyMode}
          colorMode={options.colorMode} graphMode={options.graphMode} textMode={options.textMode}
        />
      )}
    />
  );
}

function Bars(properties) {
  const { options } = properties.panel;
  return (
    <Repeated
      {...properties} orientation={options.orientation}
      one={({ value, width, height, orientation, alignmentFactors, theme }) => (
        <BarGauge
          value={value.display} field={value.field} display={value.view?.getFieldDisplayProcessor(value.colIndex)} width={width}
          height={height} orientation={orientation} theme={theme} itemSpacing={8} lcdCellWidth={12} alignmentFactors={alignmentFactors}
          displayMode={options.displayMode} showUnfilled={options.showUnfilled} valueDisplayMode={options.valueMode ?? 'color'}
          namePlacement="auto"
        />
      )}
    />
  );
}

function Rows({ panel, frames, width, height }) {
  return <TableNG data={frames[0]} width={width} height={height} initialSortBy={panel.options.sortBy} />;
}

export const TYPES = { timeseries: Curves, stat: Numbers, bargauge: Bars, table: Rows };
