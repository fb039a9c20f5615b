import { stripVTControlCharacters } from 'node:util';
import { beforeEach, describe, expect, test } from 'vitest';
import { statusScreen } from '../../../cli/aws/screen.ts';
import { Answering } from '../../../cli/aws/watching/answering.ts';
import { frame, heightOf, Live } from '../../../cli/aws/watching/live.ts';
import type { RolloutStatus } from '../../../lambdas/core/operating/operate.ts';
import { commandLine } from '../../../lambdas/core/telling/hints.ts';
import { ofSeveral, status } from '../status.ts';

const now = new Date('2026-11-23T12:00:00Z');
const place = {
  stack: 'Rollout',
  account: '123456789012',
  region: 'eu-west-1',
  commandLine: (words: string) => commandLine({ stack: 'Rollout' }, words),
};
const plain = (text: string) => stripVTControlCharacters(text);
const soaking = {
  ...status,
  waiting: null,
  holds: [],
  accepted: [],
  soak: { minutes: 120, endsAt: '2026-11-23T13:12:00Z', everyMinutes: 5 },
};

describe('a rollout that is watched', () => {
  test('shows the phases as a tree, and a bar for each table', () => {
    const lines = plain(frame(ofSeveral, place, now, { columns: 80, rows: 60 }).join('\n')).split('\n');
    expect(lines.slice(0, 11)).toEqual(
      [
        '3 tables, stack Rollout (account 123456789012, eu-west-1)',
        'ACTIVE  Phase 3 Bulk Migration, begun 10 min ago',
        '',
        '✓ Phase 1 Initial Batch',
        '✓ Phase 2 Expanded Batch',
        '▶ Phase 3 Bulk Migration',
        '  ├ public.appointments ████████████████████ 100.0 %  1,000,000 of 1,000,000 rows',
        '  ├ billing.users       ███████████████████░ 99.8 %  60,400 of 60,500 rows',
        '  └ public.orders       ░░░░░░░░░░░░░░░░░░░░',
        '· Phase 4 Enable Trigger',
        '· Phase 5 Complete Remaining',
      ].map((line) => (line.length > 80 ? `${line.slice(0, 79)}…` : line)),
    );
    expect(lines).toContain('  2026-11-23 11:50:00 UTC PHASE_STARTED public.appointments');
    expect(lines).toContain('Pressure    CPU at 42 % of where batches wait');
  });

  test.each([
    [80, 24],
    [60, 12],
    [200, 60],
  ])('fits a window of %d columns and %d rows, with the question in it', (columns, rows) => {
    const many = {
      ...ofSeveral,
      tables: Array.from({ length: 20 }, (_, nth) => ({
        ...ofSeveral.tables[nth % 3],
        name: `public.t${nth}`,
      })),
    } as RolloutStatus;
    for (const each of [status, ofSeveral, many]) {
      const lines = frame(each, place, now, { columns, rows });
      expect(heightOf(lines, columns)).toBeLessThan(rows);
      for (const line of lines.map(plain))
        if (!line.includes('npm run')) expect(line.length).toBeLessThanOrEqual(columns);
      expect(lines.join('')).not.toContain('\n');
      const text = plain(lines.join('\n'));
      expect(text.replaceAll(/\s+/g, ' ')).toContain('no answer is no-go. Phase 3 Bulk Migration: Gate');
      expect(text).toContain('decide hold-7k2m9q no-go');
    }
  });

  test('of many tables those that are not done come first', () => {
    const done = { ...ofSeveral.tables[0], name: 'public.done' };
    const open = { ...ofSeveral.tables[1], name: 'public.open' };
    const tables = [...Array.from({ length: 19 }, () => done), open] as RolloutStatus['tables'];
    const text = plain(frame({ ...status, tables }, place, now, { columns: 80, rows: 24 }).join('\n'));
    expect(text).toContain('▶ Phase 3 Bulk Migration\n  ├ public.open ');
    expect(text).toMatch(/ {2}└ and 1\d more\n/);
  });

  test('is drawn over itself on a terminal, and anew in a window of another size', () => {
    const frames: string[] = [];
    const out = { isTTY: true, columns: 80, rows: 60, write: (text: string) => frames.push(text) };
    const live = new Live(out, place);
    live.show(status, now);
    live.show(soaking, now);
    const height = heightOf((frames[0] ?? '').trimEnd().split('\n'), 80);
    expect(frames[1]?.startsWith(`\u001b[${height}A\r\u001b[J`)).toBe(true);
    expect(plain(frames[1] ?? '')).toContain('▶ Phase 3 Bulk Migration, soaking\n');
    out.columns = 40;
    live.show(soaking, now);
    expect(frames[2]?.startsWith('\u001b[2J\u001b[H')).toBe(true);
  });

  test('elsewhere is a line for each change, and silent otherwise', () => {
    const lines: string[] = [];
    const live = new Live({ write: (text: string) => lines.push(text) }, place);
    live.show(status, now);
    live.show({ ...status, rowsPerSecond: 481 }, now);
    live.show(soaking, now);
    expect(lines).toEqual([
      '2026-11-23 12:00:00 UTC ACTIVE Phase 3 Bulk Migration, 60 % or more, waiting: Paused by R. Roe: a sale, a person is asked: Phase 3 Bulk Migration: Gate (hold-7k2m9q)\n',
      '2026-11-23 12:00:00 UTC ACTIVE Phase 3 Bulk Migration, 60 % or more, soaking\n',
    ]);
  });
});

describe('a question that is answered by keys', () => {
  const [hold] = status.holds;
  const decided: string[] = [];
  const answering = () =>
    new Answering(async (id, decision) => {
      decided.push(`${id} ${decision}`);
      if (decision === 'retry') throw new Error('Hold hold-7k2m9q was decided already.');
      return 'It is decided.';
    });
  beforeEach(() => decided.splice(0));
  const shown = (keys: Answering, asked = hold) => plain(keys.lines(asked).join('\n'));

  test('offers what can be answered', () => {
    expect(shown(answering())).toBe('  Press g for go, n for no-go, r to measure once more.');
    const approval = { ...(hold as NonNullable<typeof hold>), gate: 'Phase 4 Enable Trigger: Approval' };
    expect(shown(answering(), approval)).toBe('  Press g for go, n for no-go.');
  });

  test('wants one more key, and then says what was done', async () => {
    const keys = answering();
    expect(await keys.press('n', hold)).toBe(false);
    expect(shown(keys)).toBe(
      '  This answers hold-7k2m9q with no-go. Press y to do so, any other key not to.',
    );
    expect(await keys.press('n', hold)).toBe(false);
    expect(decided).toEqual([]);
    await keys.press('n', hold);
    expect(await keys.press('y', hold)).toBe(true);
    expect(decided).toEqual(['hold-7k2m9q no-go']);
    expect(keys.lines(undefined)).toEqual(['It is decided.']);
  });

  test('answers no other than the one that was there', async () => {
    const keys = answering();
    await keys.press('g', hold);
    await keys.press('y', { ...(hold as NonNullable<typeof hold>), id: 'hold-another' });
    await keys.press('g', undefined);
    expect(decided).toEqual([]);
  });

  test('says why when it was refused', async () => {
    const keys = answering();
    await keys.press('r', hold);
    await keys.press('y', hold);
    expect(shown(keys)).toMatch(/^Hold hold-7k2m9q was decided already\.\n {2}Press g/);
  });
});

test('status in a soak says so, and until when', () => {
  expect(plain(statusScreen(soaking, place, now))).toContain(
    '\nSoaks until 2026-11-23 13:12 UTC, 1 h 12 min more of 2 h; looked at every 5 min\n',
  );
});

test('after a refusal status says why once, and what to do', () => {
  const reason = 'Preflight: Recent backup: expected one of the last 24 hours, measured none';
  const refused = {
    ...soaking,
    soak: null,
    run: status.run && {
      ...status.run,
      status: 'STOPPED' as const,
      stopReason: reason,
      endedAt: '2026-11-23T11:59:00Z',
    },
    lastGate: { gate: 'Preflight', verdict: 'NO_GO' as const, reason, judgedAt: '2026-11-23T11:59:00Z' },
  };
  const screen = plain(statusScreen(refused, place, now));
  expect(screen.split('Recent backup')).toHaveLength(2);
  expect(screen).toMatch(/\nMend what was found, then: npm run rollout -- start --stack Rollout$/);
});
