/** What the commands say of a rehearsal can be typed there and then. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { RolloutStatus } from '../../lambdas/core/operating/operate.ts';
import { serveOperators } from '../../rehearsal/aws/operators.ts';
import { unfit } from '../support/rehearsed.ts';
import { rollout } from './cloud.ts';
import { status } from './status.ts';

const home = process.cwd();
const directory = mkdtempSync(path.join(tmpdir(), 'rehearsal-commands-'));
beforeEach(() => {
  mkdirSync(path.join(directory, '.rehearsal'), { recursive: true });
  process.chdir(directory);
});
let close: () => Promise<void> = async () => undefined;
afterEach(async () => {
  await close();
  process.chdir(home);
  rmSync(directory, { recursive: true, force: true });
});

/** What a command says of a rehearsal whose records are these, and whose execution has ended. */
async function said(records: RolloutStatus, ...words: string[]): Promise<string> {
  close = await serveOperators({
    version: '0.1.0',
    operate: async () => ({ status: records, report: null }),
    running: () => [],
    startOf: () => undefined,
    stop: () => undefined,
  });
  const { stdout, stderr } = await rollout([...words, '--rehearsal']);
  return stdout + stderr;
}

const run = status.run as NonNullable<RolloutStatus['run']>;
const ended = { ...status, holds: [], accepted: [], waiting: null };
const stopped: RolloutStatus = { ...ended, run: { ...run, status: 'STOPPED', stopReason: 'Aborted' } };

test.each<[string, RolloutStatus, string[], string]>([
  ['a question', status, ['status'], 'decide hold-7k2m9q go --rehearsal'],
  ['nothing yet', { ...ended, run: null, phase: null }, ['status'], 'No rollout has begun yet.'],
  ['a stop', stopped, ['status'], 'in the window of the rehearsal'],
  [
    'a refusal',
    { ...stopped, lastGate: { gate: 'Preflight', verdict: 'NO_GO', reason: '', judgedAt: run.startedAt } },
    ['status'],
    'in the window of the rehearsal',
  ],
  ['nothing to stop', stopped, ['abort', '--yes'], 'Found no execution of EncryptionRollout under way'],
  ['nothing to report', stopped, ['report'], 'Found no run in the records'],
])('of %s', async (_, records, words, expected) => {
  const text = await said(records, ...words);
  expect(text).toContain(expected);
  expect(unfit(text)).toEqual([]);
});
