// A panel's targets -> Prometheus -> Grafana's data frames. (Grafana's own data source is AGPL and is not used.)
import { FieldType, createDataFrame, rangeUtil } from '@grafana/data';

/** What stands for the variables of a dashboard, as Grafana would put it into a query. */
export async function variables(board) {
  const values = {};
  for (const variable of board.templating?.list ?? []) {
    if (variable.type === 'datasource') values[variable.name] = variable.current.value;
    else if (variable.type === 'query') values[variable.name] = await queried(variable);
    else throw new Error(`variable ${variable.name}: type ${variable.type} is not drawn here`);
  }
  return values;
}

async function queried(variable) {
  const [, metric, label] = /^label_values\((\w+), (\w+)\)$/.exec(variable.query);
  const found = (await ask(`label/${label}/values`, { 'match[]': metric })).map(escaped);
  if (variable.current.value !== '$__all') return escaped(variable.current.value);
  return variable.allValue ?? `(${found.join('|')})`;
}

const escaped = (text) => text.replace(/[\\^$*+?.()|[\]{}]/g, '\\\\$&');

/** The step of a panel `width` pixels wide, and the interval of rates, in seconds. */
export function intervals(range, width, scrape_s) {
  const step_s = rangeUtil.calculateInterval(range, width, `${scrape_s}s`).intervalMs / 1000;
  return { step_s, rate_s: Math.max(step_s + scrape_s, 4 * scrape_s) };
}

export function interpolated(text, values, { step_s, rate_s }) {
  const all = { ...values, __rate_interval: `${rate_s}s`, __interval: `${step_s}s` };
  const done = text.replace(/\$\{(\w+)\}|\$(\w+)/g, (whole, braced, plain) => all[braced ?? plain] ?? whole);
  if (done.includes('$')) throw new Error(`a variable nobody knows: ${done}`);
  return done;
}

async function ask(what, parameters) {
  const answer = await fetch(`/api/v1/${what}?${new URLSearchParams(parameters)}`);
  const body = await answer.json();
  if (body.status !== 'success') throw new Error(`${body.error} in ${JSON.stringify(parameters)}`);
  return body.data;
}

/** The frames of one target, and how many finite samples are in them. */
export async function frames(target, range, values, spans) {
  const query = interpolated(target.expr, values, spans);
  const step_ms = spans.step_s * 1000;
  const aligned = (time) => Math.floor(time.valueOf() / step_ms) * spans.step_s;
  const data = target.instant
    ? await ask('query', { query, time: range.to.valueOf() / 1000 })
    : await ask('query_range', { query, start: aligned(range.from), end: aligned(range.to), step: spans.step_s });
  const series = data.result.map(({ metric, value, values: many }) => ({ metric, points: many ?? [value] }));
  const finite = series.flatMap((one) => one.points).filter(([, text]) => Number.isFinite(Number(text))).length;
  const made = target.format === 'table' ? [table(target, series)] : series.map((one) => curve(target, one, range, spans, aligned));
  return { frames: made, finite, query };
}

function curve(target, { metric, points }, range, spans, aligned) {
  // As Grafana's panel does it: what is not finite is a gap.
  const at = new Map(points.map(([time, text]) => [time, Number.isFinite(Number(text)) ? Number(text) : null]));
  const times = target.instant ? [...at.keys()] : [];
  // Steps without a sample are null, so that a gap is seen as one.
  for (let time = aligned(range.from); !target.instant && time <= aligned(range.to); time += spans.step_s) times.push(time);
  const name = target.legendFormat.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => metric[label] ?? '');
  return createDataFrame({
    refId: target.refId,
    name,
    fields: [
      { name: 'Time', type: FieldType.time, values: times.map((time) => time * 1000), config: { interval: spans.step_s * 1000 } },
      { name: 'Value', type: FieldType.number, labels: metric, values: times.map((time) => at.get(time) ?? null), config: { displayNameFromDS: name } },
    ],
  });
}

function table(target, series) {
  const labels = [...new Set(series.flatMap(({ metric }) => Object.keys(metric)))].filter((label) => label !== '__name__');
  return createDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: series.map(({ points }) => points[0][0] * 1000), config: {} },
      ...labels.map((label) => ({ name: label, type: FieldType.string, values: series.map(({ metric }) => metric[label] ?? ''), config: {} })),
      { name: `Value #${target.refId}`, type: FieldType.number, values: series.map(({ points }) => Number(points[0][1])), config: {} },
    ],
  });
}
