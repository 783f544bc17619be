// node build.mjs NODE_MODULES OUT: bundle src/ for the browser, and copy the icons that Grafana's components ask for.
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const [modules, out] = process.argv.slice(2);
const { build } = createRequire(join(modules, 'x.js'))('esbuild');

mkdirSync(out, { recursive: true });
await build({
  entryPoints: [join(dirname(fileURLToPath(import.meta.url)), 'src', 'main.jsx')],
  outfile: join(out, 'bundle.js'),
  bundle: true,
  format: 'esm',
  jsx: 'automatic',
  nodePaths: [modules],
  define: { 'process.env.NODE_ENV': '"production"', global: 'globalThis' },
  loader: { '.svg': 'dataurl', '.png': 'dataurl', '.woff2': 'dataurl', '.woff': 'dataurl', '.ttf': 'dataurl' },
  logLevel: 'error',
});
// Where Grafana's server has them.
cpSync(join(modules, '@grafana/ui/dist/public'), join(out, 'public/build'), { recursive: true });
writeFileSync(
  join(out, 'index.html'),
  `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="bundle.css"><link rel="icon" href="data:,">
<style>html, body { margin: 0; background: #111217 }</style>
<div id="board"></div><script type="module" src="bundle.js"></script>
`,
);
