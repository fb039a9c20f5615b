import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { defaultPlan } from '../lambdas/core/plan.ts';

const documents = ['README.md', 'CONTRIBUTING.md', ...globSync('docs/*.md')];

describe('the documents', () => {
  test('the README begins with the two commands', () => {
    const readme = readFileSync('README.md', 'utf8');
    const commands = readme.indexOf('npm ci && npm start');
    expect(commands).toBeGreaterThan(0);
    expect(commands).toBeLessThan(readme.indexOf('\n## '));
    expect(readme.slice(0, readme.indexOf('\n## '))).toContain('npm ci && npm test');
  });

  test.each(documents)('every link in %s leads somewhere', (document) => {
    const links = [...readFileSync(document, 'utf8').matchAll(/\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)/g)];
    const dead = links
      .map(([, path = '']) => path)
      .filter((path) => !existsSync(join(dirname(document), path)));
    expect(dead).toEqual([]);
  });

  test.each(defaultPlan.phases)(
    '$title is told as the plan has it',
    ({ title, aimPercent, batchRows, soakMinutes }) => {
      const readme = readFileSync('README.md', 'utf8');
      expect(readme).toContain(title);
      const soak = soakMinutes >= 60 ? `Soak ${soakMinutes / 60} h` : `Soak ${soakMinutes} min`;
      if (soakMinutes > 0) expect(readme).toContain(soak);
      const row = readFileSync('docs/operator-guide.md', 'utf8')
        .split('\n')
        .find((line) => line.startsWith(`| ${title} |`));
      expect(row).toBeDefined();
      if (batchRows > 500 && aimPercent < 100)
        expect(row).toContain(`batches of ${batchRows.toLocaleString('en-US')} to ${aimPercent} %`);
    },
  );
});
