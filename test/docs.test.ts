import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { heard } from '../infra/telling/notifications.ts';
import { plannedChecks } from '../lambdas/core/afterwards/check-schedules.ts';
import { defaultPlan, type Phase } from '../lambdas/core/plan/plan.ts';
import { PlanOverrides } from '../lambdas/core/plan/plan-overrides.ts';

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

  test.each(documents)(
    'no query of %s passes a literal of no type, which any overload would take',
    (document) => {
      const untyped = /public\.\w+\((?:[^()']*,)?\s*'[^']*'(?!::)/gi;
      expect(readFileSync(document, 'utf8').match(untyped) ?? []).toEqual([]);
    },
  );

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

describe('what is taken for granted of AWS', () => {
  const [, ...entries] = readFileSync('docs/aws-assumptions.md', 'utf8').split('\n## ');
  test.each(entries.map((entry) => [entry.split('\n')[0], entry]))(
    '%s: a source, a consequence, a look, and a test that is there',
    (_heading, entry = '') => {
      const said = Object.fromEntries(
        [...entry.matchAll(/^- ([^:]+): (.+)$/gm)].map(([, name, text]) => [name, text]),
      );
      expect(Object.keys(said)).toEqual(['Source', 'If it is wrong', 'In an account', 'Test']);
      expect(said.Source).toMatch(/\]\(https:\/\//);
      if (said.Test === 'only AWS shows it') return;
      const [, file = '', name = ''] = /^(test\/\S+\.ts), "(.+)"$/.exec(said.Test ?? '') ?? [];
      expect(readFileSync(file, 'utf8')).toContain(name);
    },
  );
});

describe('the threat model', () => {
  const page = readFileSync('docs/threat-model.md', 'utf8');
  const named = [...page.matchAll(/(?<![*\w])\*([a-z][^*|]*)\*(?!\*)/g)].map(([, name = '']) =>
    name.replace(/\s+/g, ' '),
  );

  test.each([...new Set(named)])('names a test that is there: %s', (name) => {
    const [file = '', text = ''] = name.split(/: (.*)/);
    const files = globSync(`test/**/${file.replaceAll(' ', '-')}.test.ts`);
    const plain = (some: string) => some.replaceAll('’', "'");
    expect(files.filter((path) => plain(readFileSync(path, 'utf8')).includes(plain(text)))).not.toEqual([]);
  });

  test('leaves out none of the ways that were found, and has a test for each', () => {
    const numbers = [...page.matchAll(/^\| (\d+) \| .* \|$/gm)].map(([row, number]) => {
      const [, file, name = ''] = /\| `(test\/\S+\.ts)`, "(.+)" \|$/.exec(row) ?? [];
      // Without one it is what the attack table writes.
      if (file !== undefined) expect(readFileSync(file, 'utf8')).toContain(name);
      return Number(number);
    });
    expect([...new Set(numbers)].sort((a, b) => a - b)).toEqual(Array.from({ length: 28 }, (_, n) => n + 1));
  });
});

describe("the configuration's tables of the plan", () => {
  const [, section = ''] = readFileSync('docs/configuration.md', 'utf8').split(
    '\n## The numbers of the plan',
  );
  const rows = (section.split('\n## ')[0] ?? '')
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
  const shape = PlanOverrides.shape;
  const nested = ['abort', 'throttle', 'pace', 'writeLatency', 'afterwards'] as const;
  const flat = Object.keys(shape).filter((name) => name !== 'phases' && !nested.includes(name as never));

  test('have a row with the default of every setting, and no other', () => {
    const expected = [
      ...flat.map((name) => [name, defaultPlan[name as keyof typeof defaultPlan]]),
      ...nested.flatMap((name) =>
        Object.entries(defaultPlan[name]).map(([key, value]) => [`${name}.${key}`, value]),
      ),
    ].map(([name, value]) => [`\`${name}\``, String(value)]);
    const documented = rows.filter((row) => row.length === 3).map(([name, value]) => [name, value]);
    expect(documented.sort()).toEqual(expected.sort());
  });

  test('name every setting that the schema knows', () => {
    for (const name of nested)
      expect(Object.keys(shape[name].unwrap().shape).sort()).toEqual(Object.keys(defaultPlan[name]).sort());
  });

  test('have the defaults of every phase', () => {
    const phases = shape.phases.unwrap().shape;
    const documented = rows.filter((row) => row.length === 7);
    expect(documented.map(([name]) => name)).toEqual(
      [
        'aimPercent',
        'maxRows',
        'batchRows',
        'pauseSeconds',
        'soakMinutes',
        'maxErrorPercent',
        'updateHours',
      ].map((name) => `\`${name}\``),
    );
    for (const { number, ...phase } of defaultPlan.phases) {
      const settings = Object.keys(phases[number].unwrap().shape);
      for (const [name = '', ...cells] of documented) {
        const key = name.replaceAll('`', '') as keyof Omit<Phase, 'number'>;
        expect([name, cells[number - 1]]).toEqual([name, settings.includes(key) ? String(phase[key]) : '']);
      }
    }
  });
});

describe('the operator guide tells who is told what, when', () => {
  const guide = readFileSync('docs/operator-guide.md', 'utf8');
  const [, section = ''] = guide.split('\n## Who is told what, when\n');
  const rows = (section.split('\n## ')[0] ?? '')
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map((line) => line.split('|').map((cell) => cell.trim()));

  test.each(Object.entries(heard))('%s, by the rules that tell them', (who, what) => {
    const topic = `\`<stack>-${who[0]?.toUpperCase()}${who.slice(1)}\``;
    const told = rows.filter(([, name]) => name === `\`stakeholders.${who}\``);
    expect(told.map((cells) => cells[4])).toEqual(told.map(() => topic));
    expect(told.some(([, , documented]) => documented?.startsWith(what))).toBe(true);
  });

  test.each(defaultPlan.phases)('$title: every $updateHours h', ({ title, updateHours }) => {
    const hours = updateHours === 1 ? '1 hour' : `${updateHours} hours`;
    expect(rows.map(([, ...cells]) => cells.slice(0, 2))).toContainEqual([title, hours]);
  });

  test('and what is looked at afterwards, on the days of the plan', () => {
    const { dailyDays, days } = defaultPlan.afterwards;
    const [, afterwards = ''] = guide.split('\n## After the rollout\n');
    expect(afterwards).toContain(`| days 1 to ${dailyDays} |`);
    const weekly = Array.from({ length: 4 }, (_, week) => dailyDays + 7 * (week + 1)).filter(
      (day) => day < days,
    );
    expect(afterwards).toContain(`| days ${weekly.slice(0, -1).join(', ')} and ${weekly.at(-1)} |`);
    expect(afterwards).toContain(`| day ${days} |`);
    expect(afterwards).toContain(`below ${defaultPlan.afterwards.maxErrorPercent} %`);
    expect(plannedChecks(defaultPlan)).toBe(dailyDays + weekly.length);
  });
});
