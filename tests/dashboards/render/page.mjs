// node page.mjs OPTIONS.json: open a page from its file in headless Chromium, on a light and on a dark screen, a wide and a
// narrow one; print what was asked for, what failed, and how readable it is, as JSON; keep a picture of each.
//
// options: modules, chromium, page, widths, png (folder)
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const options = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const { chromium } = createRequire(join(options.modules, 'x.js'))('playwright-core');
const address = pathToFileURL(options.page).href;

// In the page: pictures, sideways scrolling, and the worst contrast of text (WCAG 2.2, 1.4.3).
function look() {
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) =>
    [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
      .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = channels(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const written = [...document.body.querySelectorAll('*')].filter((element) =>
    [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
  const contrasts = written.map((element) => {
    const [a, b] = [light(channels(getComputedStyle(element).color)), light(ground(element))];
    return { text: element.textContent.trim().slice(0, 40), ratio: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) };
  });
  return {
    pictures: [...document.images].map((image) => ({ width: image.naturalWidth, source: image.currentSrc })),
    sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    faintest: contrasts.reduce((worst, one) => (one.ratio < worst.ratio ? one : worst)),
    ground: getComputedStyle(document.body).backgroundColor,
  };
}

const profile = mkdtempSync(join(tmpdir(), 'chromium-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: options.chromium,
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync'],
});
try {
  const page = browser.pages()[0] ?? (await browser.newPage());
  const errors = [];
  const asked = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => errors.push(message.text()));
  page.on('dialog', (dialog) => { errors.push(`dialog ${dialog.message()}`); dialog.dismiss(); });
  page.on('request', (request) => request.url().startsWith('data:') || request.url() === address || asked.push(request.url()));
  const looks = [];
  for (const scheme of ['light', 'dark']) {
    for (const width of options.widths) {
      await page.emulateMedia({ colorScheme: scheme });
      await page.setViewportSize({ width, height: 900 });
      await page.goto(address);
      for (const details of await page.locator('details').all()) await details.evaluate((element) => { element.open = true; });
      looks.push({ scheme, width, ...(await page.evaluate(look)) });
      await page.screenshot({ path: join(options.png, `${scheme}-${width}.png`), fullPage: true });
    }
  }
  console.log(JSON.stringify({ errors, asked, looks }));
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
}
