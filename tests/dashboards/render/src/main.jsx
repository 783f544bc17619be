// /?from=MS&to=MS&scrape=S: draw /dashboard.json with what /api answers; window.report says how every panel came out.
import { EventBusSrv, LoadingState, ThemeContext, createTheme, dateTime } from '@grafana/data';
import { GlobalStyles, PanelChrome, PanelContextProvider } from '@grafana/ui';
import { Component } from 'react';
import { createRoot } from 'react-dom/client';
import { painted } from './check.js';
import { dressed, unknown } from './fields.js';
import { TYPES } from './panels.jsx';
import { frames, intervals, variables } from './query.js';

window.__grafana_public_path__ = '/public/';
const [CELL, GAP] = [30, 8];
const asked = new URLSearchParams(location.search);
const scrape_s = Number(asked.get('scrape'));
const from = dateTime(Number(asked.get('from'))), to = dateTime(Number(asked.get('to')));
const range = { from, to, raw: { from, to } };
const theme = createTheme({ colors: { mode: 'dark' } });
const context = { eventsScope: 'global', eventBus: new EventBusSrv(), sync: () => 0, canAddAnnotations: () => false };

class Guard extends Component {
  state = { error: null };
  static getDerivedStateFromError = (error) => ({ error });
  componentDidCatch(error) { this.props.problems.push(`React: ${error}`); }
  render() { return this.state.error ? String(this.state.error) : this.props.children; }
}

function place({ gridPos: { x, y, w, h } }) {
  const column = (innerWidth - GAP) / 24;
  return { position: 'absolute', left: GAP + x * column, top: GAP + y * (CELL + GAP), width: w * column - GAP, height: h * (CELL + GAP) - GAP };
}

function Panel({ drawn }) {
  const { panel, data, problems, empty } = drawn, box = place(panel), Type = TYPES[panel.type];
  return (
    <div style={box} data-panel={panel.id}>
      <PanelChrome
        title={panel.title} description={panel.description} width={box.width} height={box.height}
        loadingState={problems.length ? LoadingState.Error : LoadingState.Done} statusMessage={problems.join('; ') || undefined}
      >
        {(width, height) => (
          <Guard problems={problems}>
            {empty ? <Nothing text={panel.fieldConfig.defaults.noValue ?? 'No data'} height={height} />
                   : Type && data && <Type panel={panel} frames={data} range={range} width={width} height={height} />}
          </Guard>
        )}
      </PanelChrome>
    </div>
  );
}

const Nothing = ({ text, height }) => (
  <div style={{ height, display: 'grid', placeItems: 'center', color: theme.colors.text.secondary }}>{text}</div>
);

const Heading = ({ panel }) => (
  <div style={{ ...place(panel), display: 'flex', alignItems: 'center', color: theme.colors.text.primary, font: `500 17px ${theme.typography.fontFamily}` }}>
    {panel.title}
  </div>
);

/** What a panel is to show, and everything that is wrong with it so far. */
async function prepared(panel, values) {
  const problems = TYPES[panel.type] ? unknown(panel) : [`a panel of type ${panel.type} is not drawn here`];
  const spans = intervals(range, Math.round(place(panel).width), scrape_s), targets = [], got = [];
  for (const target of panel.targets) {
    try {
      const { frames: made, finite, query } = await frames(target, range, values, spans);
      targets.push({ ref: target.refId, query, series: made.length, finite });
      got.push(...made);
    } catch (error) {
      targets.push({ ref: target.refId, query: target.expr, series: 0, finite: 0 });
      problems.push(`${target.refId}: ${error.message}`);
    }
  }
  const empty = targets.every(({ finite }) => finite === 0);
  let data = null;
  try {
    data = empty ? null : await dressed(panel, got, theme);
  } catch (error) {
    problems.push(`fields: ${error.message}`);
  }
  return { panel, data, problems, empty, targets };
}

const settled = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function main() {
  const board = await (await fetch('/dashboard.json')).json();
  const values = await variables(board);
  const panels = board.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]);
  const drawn = await Promise.all(panels.filter(({ type }) => type !== 'row').map((panel) => prepared(panel, values)));
  // What is written on a canvas is written once: the font must be there before.
  await document.fonts.load(`14px ${theme.typography.fontFamily}`);
  createRoot(document.getElementById('board')).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <PanelContextProvider value={context}>
        {panels.filter(({ type }) => type === 'row').map((panel) => <Heading key={panel.id} panel={panel} />)}
        {drawn.map((one) => <Panel key={one.panel.id} drawn={one} />)}
      </PanelContextProvider>
    </ThemeContext.Provider>,
  );
  await settled(2500);
  for (const { panel, data, problems, empty } of drawn) {
    const box = document.querySelector(`[data-panel="${panel.id}"]`);
    if (!empty && data && TYPES[panel.type]) problems.push(...painted(panel, data, theme, box));
  }
  window.clip = (rows) => {
    const wanted = panels.filter((panel) => !rows || panel.gridPos.y + panel.gridPos.h <= rows);
    const bottoms = wanted.map((panel) => place(panel)).map(({ top, height }) => top + height);
    return { x: 0, y: 0, width: innerWidth, height: Math.ceil(Math.max(...bottoms)) + GAP };
  };
  window.report = {
    panels: drawn.map(({ panel: { id, title, type }, problems, empty, targets }) => ({ id, title, type, problems, empty, targets })),
  };
}

main().catch((error) => {
  window.report = { panels: [], failed: String(error.stack ?? error) };
});
