import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { rollout } from '../cli/cloud.ts';
import { framesOf, hasTerminals, Screen } from '../support/terminal.ts';
import { Bench, type Rehearsal } from './process.ts';

const bench = new Bench();
const home = process.cwd();
const { version } = JSON.parse(readFileSync('package.json', 'utf8'));
beforeAll(async () => {
  await bench.prepare({ soakSliceMinutes: 30 }, 1, [2, 4]);
  // Where the commands look for the rehearsal.
  process.chdir(bench.directory);
});
afterAll(() => {
  process.chdir(home);
  return bench.clear();
});

/** `npm run rollout -- … --rehearsal`, without the questions. */
async function operate(...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await rollout([...words, '--rehearsal']);
  expect({ code, stderr }).toMatchObject({ code: 0 });
  return stdout;
}

/** The id of the question about this gate, once it is asked. */
async function asked(rehearsal: Rehearsal, gate: string): Promise<string> {
  const question = new RegExp(`${gate}[\\s\\S]*?decide (\\S+) no-go --rehearsal`);
  return (await rehearsal.until(question))[1] ?? '';
}

// First, since it completes: what is stopped below is resumed by whoever comes next.
it.skipIf(!hasTerminals)(
  'is watched in a terminal of 80 columns, to its end, and answered by keys',
  async () => {
    const rehearsal = bench.start('--rows', '600', '--approvals', '2,4');
    await asked(rehearsal, 'Phase 2 Expanded Batch: Approval');
    const watch = bench.rolloutInTerminal(80, 24, 'status', '--watch', '--rehearsal');
    const screen = new Screen(80, 24);
    watch.child.stdout?.setEncoding('utf8').on('data', (drawn) => screen.write(drawn));
    const said = (text: string) =>
      vi.waitUntil(() => screen.text.replaceAll(/\s+/g, ' ').includes(text), { timeout: 240_000 });
    const answer = async (phase: string) => {
      await said(`no-go. ${phase}: Approval So far: `);
      watch.child.stdin?.write('g');
      await said('with go. Press y to do so');
      watch.child.stdin?.write('y');
    };
    await answer('Phase 2 Expanded Batch');
    await answer('Phase 4 Enable Trigger');
    expect(await rehearsal.exit(), rehearsal.output).toBe(0);
    expect(await watch.exit(), watch.output).toBe(0);

    const frames = framesOf(watch.output, 80, 24);
    for (const frame of frames) {
      // Nothing is left over of the frames before, and nothing has scrolled away.
      expect(frame.split('\n')[0]).toBe('public.appointments, rehearsal on this machine');
      expect(frame.match(/^(ACTIVE|COMPLETED) /gm), frame).toHaveLength(1);
    }
    expect(frames.at(-1)).toMatch(/^COMPLETED /m);
  },
  300_000,
);

it('is operated as a deployment is: approvals, a pause, another pace, a question, and an abort', async () => {
  const rehearsal = bench.start('--rows', '600', '--approvals', '2,4', '--fault', 'no-metric');
  const approval = await asked(rehearsal, 'Phase 2 Expanded Batch: Approval');
  const status = await operate('status');
  expect(status).toContain('public.appointments, rehearsal on this machine\n');
  expect(status).toMatch(new RegExp(`^Version +${version.replaceAll('.', '\\.')}$`, 'm'));
  expect(await operate('report')).toContain(`- Made with version ${version}; database `);
  // What the phase before has done, what the next one will, and the answers that there are.
  expect(status).toMatch(
    new RegExp(
      `Approval\n  So far: [\\d,]+ of [\\d,]+ rows encrypted \\([\\d.]+ %\\):\n  - Phase 1 Initial Batch: .*; judged GO\n  Next: about .*\n  .*decide ${approval} go --rehearsal\n  .*decide ${approval} no-go --rehearsal\n\n`,
    ),
  );

  // The page, the status and the help agree how long it waits.
  const [, until = ''] = /it can wait until (\S+ \S+) UTC/.exec(rehearsal.output) ?? [];
  const minutesLeft = (Date.parse(`${until}Z`) - Date.now()) / 60_000;
  expect(minutesLeft).toBeGreaterThan(5);
  expect(minutesLeft).toBeLessThanOrEqual(10);
  expect(status).toMatch(/A person is asked, for (?:10 min|\d min(?: \d+ s)?) more; /);

  await isNotCutOff(approval);

  expect(await operate('pause', '--reason', 'a sale', '--yes')).toContain('a sale');
  expect(await operate('tune', '--batch-rows', '50', '--yes')).toContain('batches of 50 rows');
  await operate('decide', approval, 'go', '--yes');
  await rehearsal.until('Batches wait. Paused by arn:aws:iam::123456789012:user/');
  await operate('resume', '--yes');

  await operate('decide', await asked(rehearsal, 'Phase 3 Bulk Migration: CheckVitals'), 'go', '--yes');
  await asked(rehearsal, 'Phase 4 Enable Trigger: Approval');
  expect(await operate('abort', '--reason', 'practised', '--yes')).toMatch(/^Stopped, trigger off, /m);
  expect(await rehearsal.exit(), rehearsal.output).toBe(2);
  expect(rehearsal.report()).toMatchObject({
    outcome: 'STOPPED',
    reason: expect.stringMatching(/^Aborted by arn:aws:iam::123456789012:user\/.*: practised$/),
    triggerEnabled: false,
    plaintextUnchanged: true,
  });

  expect(await rollout(['status', '--rehearsal'])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('Found no rehearsal under way in this directory'),
  });
}, 300_000);

/** By another rehearsal in the same directory, which ends while this question is open. */
async function isNotCutOff(question: string): Promise<void> {
  // With an app of its own: the one that is there has approvals.
  const app = ['--assembly', path.join(bench.directory, 'beside'), '--rows', '100'];
  const beside = bench.start(...app, '--fault', 'wrong-key');
  await beside.until('Phase 1 Initial Batch');
  expect(await operate('status')).toContain(`decide ${question} go --rehearsal`);
  expect(await beside.exit(), beside.output).toBe(2);
  expect(beside.output).toContain('commands with --rehearsal reach that one, not this one');
  expect(await operate('status')).toContain(`decide ${question} go --rehearsal`);

  const refused = bench.start(...app, '--approvals', '2', '--fault', 'no-metric', '--slowly');
  expect(await refused.exit(), refused.output).toBe(1);
  expect(refused.output).toContain(
    'Found --approvals 2 --fault no-metric --slowly while another rehearsal is under way',
  );
}
