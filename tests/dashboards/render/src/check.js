// Did a panel really paint what it was given? Canvas: each curve's colour must be there. Text: the formatted value must stand.
import { FieldType, formattedValueToString, getFieldSeriesColor } from '@grafana/data';
import { displays } from './panels.jsx';

const NEAR = 40; // of RGB distance: curves of one pixel are blended with what is below them
const PIXELS = 5;

export function painted(panel, frames, theme, box) {
  if (panel.type === 'timeseries') return curves(frames, theme, box);
  if (panel.type === 'table') return cells(frames[0], box);
  const text = panel.options.textMode === 'name' ? ({ title }) => title : formattedValueToString;
  return displays(panel, frames, theme)
    .map(({ display }) => text(display))
    .filter((text) => !box.textContent.includes(text))
    .map((text) => `the value ${text} does not stand there`);
}

function curves(frames, theme, box) {
  const pixels = [...box.querySelectorAll('canvas')].flatMap((canvas) => colours(canvas));
  const fields = frames.flatMap((frame) => frame.fields.filter((field) => field.type === FieldType.number));
  return fields
    .filter((field) => hasLine(field.values) && !fields.some((other) => covers(other, field, fields)))
    .map((field) => ({ name: field.state.displayName, colour: rgb(getFieldSeriesColor(field, theme).color) }))
    .filter(({ colour }) => pixels.filter(([key, count]) => distance(key, colour) < NEAR).reduce((sum, [, count]) => sum + count, 0) < PIXELS)
    .map(({ name, colour }) => `the curve ${name} (${colour}) is not on the canvas`);
}

/** Two samples side by side: a line. */
const hasLine = (values) => values.some((value, i) => i > 0 && Number.isFinite(value) && Number.isFinite(values[i - 1]));

/** Whether `other` is drawn after `field` and in the same places. */
function covers(other, field, fields) {
  if (fields.indexOf(other) <= fields.indexOf(field) || other.config.unit !== field.config.unit) return false;
  const size = Math.max(...fields.flatMap(({ values }) => values.filter(Number.isFinite).map(Math.abs)), 1e-12);
  const there = field.values.map((value, i) => [value, other.values[i]]).filter(([value]) => Number.isFinite(value));
  return there.filter(([a, b]) => Math.abs(a - b) <= size * 0.01).length >= there.length * 0.9;
}

/** [rgb, how many pixels] of what is not transparent. */
function colours(canvas) {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const found = new Map();
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] <= 60) continue;
    const key = (data[i] << 16) | (data[i + 1] << 8) | data[i + 2];
    found.set(key, (found.get(key) ?? 0) + 1);
  }
  return [...found].map(([key, count]) => [[key >> 16, (key >> 8) & 255, key & 255], count]);
}

const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);

function rgb(colour) {
  const context = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d');
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

/** The headings, and a value of each column. */
function cells(frame, box) {
  const wanted = frame.fields.filter((field) => !field.config.custom?.hidden).flatMap((field) => {
    const row = [...field.values].findIndex((value) => value !== null && value !== undefined && value !== '');
    const shown = row < 0 ? [] : [field.display ? formattedValueToString(field.display(field.values[row])) : String(field.values[row])];
    return [field.state.displayName, ...shown];
  });
  return wanted.filter((text) => !box.textContent.includes(text)).map((text) => `${text} does not stand in the table`);
}
