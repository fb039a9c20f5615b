import { stripVTControlCharacters } from 'node:util';
import { describe, expect, test } from 'vitest';
import { frame, Live, liveScreen } from '../../cli/aws/live.ts';
import { statusScreen } from '../../cli/aws/screen.ts';
import { commandLine } from '../../lambdas/core/telling/hints.ts';
import { ofSeveral, status } from './status.ts';

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
  test('shows the phases as a tree, a bar for each table, and the latest events', () => {
    const lines = plain(liveScreen(ofSeveral, place, now)).split('\n');
    expect(lines.slice(0, 8)).toEqual([
      '✓ Phase 1 Initial Batch',
      '✓ Phase 2 Expanded Batch',
      '▶ Phase 3 Bulk Migration',
      '  ├ public.appointments ████████████████████ 100.0 %',
      '  ├ billing.users       ███████████████████░ 99.8 %',
      '  └ public.orders       ░░░░░░░░░░░░░░░░░░░░ ',
      '· Phase 4 Enable Trigger',
      '· Phase 5 Complete Remaining',
    ]);
    expect(lines.slice(-2)).toEqual([
      'Latest',
      '  2026-11-23 11:50:00 UTC PHASE_STARTED public.appointments',
    ]);
  });

  test('fits the window, whatever its size', () => {
    for (const [columns, rows] of [
      [80, 24],
      [40, 10],
      [200, 60],
    ] as const) {
      const lines = frame(liveScreen(ofSeveral, place, now), columns, rows);
      expect(lines.length).toBeLessThan(rows);
      for (const line of lines) expect(plain(line).length).toBeLessThanOrEqual(columns);
    }
  });

  test('is drawn over itself on a terminal', () => {
    const frames: string[] = [];
    const out = { isTTY: true, columns: 80, rows: 60, write: (text: string) => frames.push(text) };
    const live = new Live(out, place);
    live.show(status, now);
    live.show(soaking, now);
    const lines = plain(frames[0] ?? '')
      .trimEnd()
      .split('\n').length;
    expect(frames[1]?.startsWith(`\u001b[${lines}A\r\u001b[J`)).toBe(true);
    expect(plain(frames[1] ?? '')).toContain('▶ Phase 3 Bulk Migration, soaking\n');
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
