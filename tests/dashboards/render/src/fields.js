// Transformations, defaults and overrides of a panel, applied to its frames by Grafana's own functions. Their registries are
// empty outside Grafana, and what is not in a registry is left out without a word: so whatever a panel asks for that is not
// known here is an error.
import {
  FieldConfigOptionsRegistry, FieldType, applyFieldOverrides, cacheFieldDisplayNames, standardTransformers,
  standardTransformersRegistry, transformDataFrame,
} from '@grafana/data';
import { lastValueFrom } from 'rxjs';

const STANDARD = ['unit', 'decimals', 'min', 'max', 'thresholds', 'mappings', 'color', 'noValue', 'displayName'];
const CUSTOM = [
  'align', 'inspect',
  'axisBorderShow', 'axisPlacement', 'axisSoftMin', 'axisSoftMax', 'drawStyle', 'fillOpacity', 'gradientMode', 'lineInterpolation', 'lineWidth',
  'showPoints', 'spanNulls', 'stacking', 'thresholdsStyle',
];
const TRANSFORMERS = new Set(['merge', 'organize']);

const option = (path, isCustom) => ({
  id: isCustom ? `custom.${path}` : path,
  path, isCustom, name: path, settings: {}, editor: () => null, override: () => null,
  process: (value) => value,
  shouldApply: (field) => !isCustom || field.type !== FieldType.time,
});

const registry = new FieldConfigOptionsRegistry(() => [...STANDARD.map((p) => option(p, false)), ...CUSTOM.map((p) => option(p, true))]);

// What organize asks for itself, under their own ids.
const inner = Object.values(standardTransformers).filter((one) => one?.id);
standardTransformersRegistry.setInit(() => [...new Map(inner.map((one) => [one.id, one])).values()].map((transformation) => ({
  id: transformation.id, name: transformation.name, transformation, editor: () => null,
})));

/** What a panel wants and we would drop in silence. */
export function unknown({ fieldConfig, transformations = [] }) {
  const asked = [
    ...Object.keys(fieldConfig?.defaults ?? {}).filter((key) => key !== 'custom'),
    ...Object.keys(fieldConfig?.defaults?.custom ?? {}).map((key) => `custom.${key}`),
    ...(fieldConfig?.overrides ?? []).flatMap(({ properties }) => properties.map(({ id }) => id)),
  ];
  const known = new Set(registry.list().map(({ id }) => id));
  return [
    ...asked.filter((id) => !known.has(id)).map((id) => `field option ${id} is not drawn here`),
    ...(fieldConfig?.overrides ?? []).filter(({ matcher }) => matcher.id !== 'byName').map(({ matcher }) => `override ${matcher.id} is not drawn here`),
    ...transformations.filter(({ id }) => !TRANSFORMERS.has(id)).map(({ id }) => `transformation ${id} is not drawn here`),
  ];
}

export async function dressed(panel, frames, theme) {
  const steps = panel.fieldConfig?.defaults?.thresholds?.steps ?? [];
  for (const step of steps) step.value ??= -Infinity; // JSON has no infinity
  const transformed = await lastValueFrom(transformDataFrame(panel.transformations ?? [], frames));
  const data = applyFieldOverrides({
    data: transformed,
    fieldConfig: { defaults: {}, overrides: [], ...panel.fieldConfig },
    fieldConfigRegistry: registry,
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
  });
  cacheFieldDisplayNames(data);
  return data;
}
