// node shoot.mjs OPTIONS.json: serve the bundle, the dashboard and a Prometheus from one address, look at them in headless
// Chromium, print what the page reports of every panel as JSON, and keep a picture.
//
// options: modules, dist, chromium, dashboard, prometheus, from_ms, to_ms, scrape_s, width, png, rows (of the grid in it, 0: all)
import { createReadStream, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, extname, join, normalize } from 'node:path';

const options = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const { chromium } = createRequire(join(options.modules, 'x.js'))('playwright-core');
const FONTS = '/usr/share/fonts/opentype/inter';
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.json': 'application/json' };

function serve(req, res) {
  const url = new URL(req.url, 'http://x');
  if (url.pathname.startsWith('/api/')) {
    const up = request(new URL(req.url, options.prometheus), { method: req.method, headers: req.headers }, (answer) => {
      res.writeHead(answer.statusCode, answer.headers);
      answer.pipe(res);
    });
    up.on('error', (error) => res.writeHead(502).end(String(error)));
    req.pipe(up);
    return;
  }
  const path = located(url.pathname);
  try {
    statSync(path);
  } catch {
    res.writeHead(404).end();
    return;
  }
  res.writeHead(200, { 'content-type': TYPES[extname(path)] ?? 'application/octet-stream' });
  createReadStream(path).pipe(res);
}

function located(path) {
  if (path === '/') return join(options.dist, 'index.html');
  if (path === '/dashboard.json') return options.dashboard;
  // Grafana's server has its font here; Debian's package has the same one.
  if (path.startsWith('/public/fonts/inter/')) return join(FONTS, basename(path).replace('.woff2', '.otf'));
  return join(options.dist, normalize(path));
}

const server = createServer(serve);
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const profile = mkdtempSync(join(tmpdir(), 'chromium-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: options.chromium,
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync'],
  viewport: { width: options.width, height: 1000 },
});
try {
  const page = browser.pages()[0] ?? (await browser.newPage());
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  page.on('response', (answer) => answer.ok() || errors.push(`${answer.status()} ${answer.url()}`));
  const query = new URLSearchParams({ from: options.from_ms, to: options.to_ms, scrape: options.scrape_s });
  // As high as the page is, or what is below the fold stays empty.
  const board = JSON.parse(readFileSync(options.dashboard, 'utf8'));
  const rows = Math.max(...board.panels.map((panel) => panel.gridPos.y + panel.gridPos.h));
  await page.setViewportSize({ width: options.width, height: rows * 38 + 16 });
  await page.goto(`http://127.0.0.1:${server.address().port}/?${query}`);
  await page.waitForFunction('window.report !== undefined', undefined, { timeout: 60_000 });
  const report = await page.evaluate('window.report');
  if (!report.failed) await page.screenshot({ path: options.png, clip: await page.evaluate(`window.clip(${options.rows})`) });
  console.log(JSON.stringify({ ...report, errors }));
} finally {
  await browser.close();
  server.close();
  server.closeAllConnections();
  rmSync(profile, { recursive: true, force: true });
}
