/** The machine Hold as it is synthesized, with the handlers and a real database behind it. */
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { readConfig } from '../../../infra/config.ts';
import { fileOf } from '../../../infra/functions/handler-files.ts';
import { synthesizeRollout } from '../../../infra/synthesis.ts';
import type { PrepareDatabaseOutput } from '../../../lambdas/core/payloads.ts';
import { StateMachines, silent } from '../../../rehearsal/machines/state-machines.ts';
import { type TestWorld, testWorld } from '../../lambdas/world.ts';

// What the handlers print, where a test can read it. Set before they are imported.
const levelOfOthers = process.env.POWERTOOLS_LOG_LEVEL;
process.env.POWERTOOLS_DEV = 'true';
const printed: string[] = [];
for (const level of ['log', 'debug', 'info', 'warn', 'error'] as const)
  vi.spyOn(console, level).mockImplementation((...said) => void printed.push(JSON.stringify(said)));
afterAll(() => {
  process.env.POWERTOOLS_LOG_LEVEL = levelOfOthers;
  vi.restoreAllMocks();
});

const { machines } = synthesizeRollout(readConfig('config/example.json'));
const gate = 'Phase 3 Bulk Migration: Approval';

let world: TestWorld;
let run: PrepareDatabaseOutput;
let onPage: (hold: string) => unknown;
let onWaiting: (hold: string) => unknown;
let pages: string[];
const tokens: string[] = [];
const holdOf = (message: string) => /hold-\w{6}/.exec(message)?.[0] ?? '';
const stateMachines = new StateMachines({
  definitions: new Map(Object.entries(machines).map(([name, { definition }]) => [name, definition])),
  invoke: async (name, input) => {
    const output = await world.invoke(fileOf(name), input);
    if (name === 'AwaitDecision') {
      const { token, hold } = input as { token: string; hold: string };
      tokens.push(token);
      await onWaiting(hold);
    }
    return output;
  },
  listener: {
    ...silent,
    // Between the page and the wait: the quickest that a person can be.
    beforeFunction: async (name) => {
      if (name === 'AwaitDecision') await onPage(holdOf(pages.at(-1) ?? ''));
    },
    notified: (subject, message) => {
      pages.push(`${subject}\n${message}`);
      printed.push(message);
    },
  },
  answerMs: 500,
});

beforeEach(async () => {
  world = await testWorld(40);
  process.env.POWERTOOLS_LOG_LEVEL = 'DEBUG';
  world.aws.world.succeedTask = (token, output) => stateMachines.succeedTask(token, output);
  run = await world.prepare('one');
  [onPage, onWaiting, pages] = [() => undefined, () => undefined, []];
  expect(await approve()).toMatchObject({ gate, verdict: 'INCONCLUSIVE' });
});
afterEach(() => world.stop());

const approve = () => world.inTurn('gate', { run, phase: 3, stage: 'approval' });
const answer = (decision: string) => (hold: string) =>
  world.invoke('operate', { command: 'decide', by: 'R. Roe', hold, decision });
const hold = () => stateMachines.execute('Hold', `${run.id}-hold-1`, { run, gate });

describe('the machine Hold', () => {
  test.each(['go', 'no-go'])('pages, waits, and goes on with the answer: %s', async (decision) => {
    onWaiting = answer(decision);
    expect(await hold()).toMatchObject({ status: 'SUCCEEDED', output: { hold: holdOf(pages[0] ?? '') } });
    expect(pages).toHaveLength(1);
    expect(pages[0]).toMatch(/^Payments: approve: public\.appointments, phase \d/);
    expect((await approve()).verdict).toBe({ go: 'GO', 'no-go': 'NO_GO' }[decision]);
  });

  test('goes on at once when the answer was there before it waited', async () => {
    onPage = answer('go');
    expect(await hold()).toMatchObject({ status: 'SUCCEEDED' });
    expect((await approve()).verdict).toBe('GO');
  });

  test('waits in vain when an alarm stops the rollout: the rollback waits for nobody, and no answer changes that', async () => {
    process.env.ROLLBACK_MACHINE_ARN = 'arn:aws:states:us-east-1:123456789012:stateMachine:X-Rollback';
    await world.client.query(
      `insert into encryption_rollout.gates (run_id, attempt, gate, verdict, reason, criteria)
       values ($1, 1, 'Preflight', 'GO', '', '[]')`,
      [run.id],
    );
    await world.client.query("select encryption_rollout.set_trigger('public.appointments', true)");
    const state = async () =>
      (
        await world.client.query(
          `select r.status, t.tgenabled from encryption_rollout.runs r, pg_trigger t
           where t.tgname = 'encrypt_appointment_pii'`,
        )
      ).rows;
    const stopped = [{ status: 'STOPPED', tgenabled: 'D' }];
    onWaiting = async (hold) => {
      await world.invoke('stop-rollout', {
        'detail-type': 'CloudWatch Alarm State Change',
        id: 'c4c1c1c9-6542-e61b-6ef0-8c4d36933a92',
        detail: { alarmName: 'Payments-TriggerFailures', state: { value: 'ALARM' } },
      });
      expect(world.aws.executions.get('one')).toMatchObject({ status: 'ABORTED' });
      const [arn, { input }] = [...world.aws.executions].find(([name]) => name.includes('X-Rollback')) as [
        string,
        { input: unknown },
      ];
      const name = arn.split(':').at(-1) as string;
      expect(await stateMachines.execute('Rollback', name, input)).toMatchObject({ status: 'SUCCEEDED' });
      expect(await state()).toEqual(stopped);
      await expect(answer('go')(hold)).rejects.toMatchObject({
        name: 'InvalidInput',
        message: expect.stringContaining('which is over'),
      });
    };
    // Step Functions stops this one, too, as well as it can. Here it outlives its rollout, to its time-out.
    expect(await hold()).toMatchObject({ status: 'SUCCEEDED' });
    expect(pages.at(-1)).toMatch(
      /^Payments: stopped: public\.appointments: alarm Payments-TriggerFailures\n.*went off/,
    );
    expect(await state()).toEqual(stopped);
    await expect(approve()).rejects.toMatchObject({ name: 'RunSuperseded' });
  });

  test('takes silence for no-go', async () => {
    expect(await hold()).toMatchObject({ status: 'SUCCEEDED' });
    expect((await approve()).reason).toContain('no answer in time');
  });
});

test('a token is in no page and no line of the logs', () => {
  expect(tokens.length).toBeGreaterThan(4);
  expect(printed.join()).toContain('AwaitDecision');
  for (const token of tokens) expect(printed.join()).not.toContain(token);
});

test('every line that a step logs names its run and its execution', () => {
  const lines = printed
    .filter((said) => said.startsWith('['))
    .flatMap((said) => JSON.parse(said) as string[])
    .filter((text) => text.startsWith('{'))
    .map((text) => JSON.parse(text));
  for (const state of ['AskPerson', 'AwaitDecision', 'ExpireHold']) {
    const [line] = lines.filter((each) => each.state === state);
    expect(line).toMatchObject({
      run: expect.stringMatching(/^[0-9a-f-]{36}$/),
      execution: expect.stringMatching(/^arn:aws:states:.*:execution:Hold:.*-hold-1$/),
    });
  }
});
