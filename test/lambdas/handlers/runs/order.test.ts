/** Steps that are called directly, by whoever may call functions, before it is their turn: the records refuse them. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { fileOf } from '../../../../infra/functions/handler-files.ts';
import type { PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { defaultPlan, type PhaseNumber, phaseOf } from '../../../../lambdas/core/plan/plan.ts';
import { definitions, statesOf } from '../../../infra/machines.ts';
import { appointments, triggerIsOn } from '../../tables.ts';
import { begunWorlds, passBefore, type TestWorld } from '../../world.ts';

let world: TestWorld;
let run: PrepareDatabaseOutput;
const begun = begunWorlds(40);
beforeEach(async () => {
  [world, run] = await begun();
});
afterEach(() => world.stop());

/** Calls of functions as the machines make them: `Gate worked` for the function and the constant that tells its calls apart. */
const calls = new Map<string, { readonly name: string; readonly constants: Record<string, unknown> }>();
for (const machine of definitions.keys())
  for (const [, { Resource = '', Parameters = {} }] of statesOf(machine)) {
    const { FunctionName = Resource, Payload = Parameters } = Parameters as Record<string, never>;
    const name = /:function:(\w+)$/.exec(FunctionName)?.[1];
    if (name === undefined) continue;
    const constants = Object.fromEntries(Object.entries(Payload).filter(([key]) => !key.endsWith('.$')));
    calls.set([name, ...Object.values(constants).filter((value) => typeof value === 'string')].join(' '), {
      name,
      constants,
    });
  }

function call(step: string, phase: PhaseNumber): Promise<unknown> {
  const { name, constants } = calls.get(step) ?? { name: step, constants: {} };
  return world.invoke(fileOf(name), {
    run,
    phase,
    target: appointments,
    execution: 'by-hand',
    executionArn: 'by-hand',
    batch: 0,
    round: 0,
    slice: 0,
    input: {},
    onCall: { subscribers: 1 },
    gate: `${phaseOf(defaultPlan, phase).title}: Gate`,
    hold: 'hold-222222',
    token: 'token',
    confirm: run.id,
    check: 'daily',
    ...constants,
  });
}

const refused = (what: string) => ({
  name: 'MissingPrerequisite',
  message: expect.stringContaining(`in attempt ${run.attempt} of run ${run.id} ${what}`),
});

/** All that a step could have changed. */
async function records() {
  const { rows } = await world.client.query(
    `select
       (select jsonb_agg(to_jsonb(r)) from encryption_rollout.runs as r) as runs,
       (select jsonb_agg(to_jsonb(p) order by number) from encryption_rollout.phases as p) as phases,
       (select jsonb_agg(to_jsonb(g) order by id) from encryption_rollout.gates as g) as gates,
       (select jsonb_agg(to_jsonb(a)) from encryption_rollout.audits as a) as audits,
       (select jsonb_agg(to_jsonb(h)) from encryption_rollout.holds as h) as holds,
       (select jsonb_agg(to_jsonb(e) order by id) from encryption_rollout.events as e where event not like 'MEMBERS%') as events,
       (select count(*)::integer from public.appointments where pii_iv is not null) as encrypted`,
  );
  return { ...rows[0], triggerIsOn: await triggerIsOn(world, appointments) };
}

/** Steps that no order keeps from being called: why. Every other one of the machines' is refused before its turn. */
const atAnyTime: Readonly<Record<string, string>> = {
  PrepareDatabase: 'opens the run',
  TakeBackup: 'comes first',
  CountSubscribers: 'only looks',
  DryRun: 'only looks',
  Preflight: 'comes first, and once: below',
  ExplainFailure: 'only tells',
  WriteUpdate: 'only tells',
  // Each is safe by itself: where one fails, the next is tried all the same.
  CancelBatches: 'stops',
  DisableTrigger: 'stops',
  ProvePlaintext: 'only looks',
  GatherEvidence: 'stops',
};

/** Those that ask the records in words of their own. */
const answers: Readonly<Record<string, object>> = {
  AskPerson: { name: 'TransientError', message: expect.stringContaining('nothing to ask') },
  AwaitDecision: { name: 'InvalidInput', message: expect.stringContaining('has no hold') },
  ClearCiphertext: { name: 'RunSuperseded' },
  ScheduleChecks: { message: expect.stringContaining('for a completed rollout only') },
};
/** They find nothing to do. */
const idle = ['ExpireHold', 'PostRolloutCheck'];

describe('before preflight', () => {
  const ordered = [...calls.keys()].filter((step) => !(step in atAnyTime));

  test('the machines call what is named here, and more', () => {
    const named = [...Object.keys(atAnyTime), ...Object.keys(answers), ...idle];
    expect(named.filter((step) => !calls.has(step))).toEqual([]);
    expect(ordered.length).toBeGreaterThan(15);
  });

  test('every step of the machines that has a place in the order is refused, and changes nothing', async () => {
    const before = await records();
    for (const step of ordered) {
      const outcome = await call(step, 5).then(
        (answer) => (idle.includes(step) ? 'idle' : answer),
        ({ name, message }) => ({ name, message }),
      );
      expect([step, outcome]).toEqual([
        step,
        idle.includes(step)
          ? 'idle'
          : expect.objectContaining(answers[step] ?? refused('preflight has not said GO')),
      ]);
    }
    expect(await records()).toEqual(before);
  });
});

test('through a phase each step waits for the one before it', async () => {
  const expectRefused = async (what: string, ...steps: [string, PhaseNumber][]) => {
    const before = await records();
    for (const [step, phase] of steps)
      await expect(call(step, phase), `${step} ${phase}`).rejects.toMatchObject(refused(what));
    expect(await records()).toEqual(before);
  };
  const notPassed = (phase: number) => `${appointments} has not passed the last gate of phase ${phase}`;
  const go = async (step: string, phase: PhaseNumber) =>
    expect(await call(step, phase), step).toMatchObject({ verdict: 'GO' });

  await go('Preflight', 1);
  await expectRefused(
    notPassed(1),
    ['EncryptBatch', 2],
    ['EncryptBatch', 5],
    ['EnableTrigger', 4],
    ['AuditRows', 5],
  );
  await expectRefused('the work of phase 1', ['Gate worked', 1], ['Gate soaked', 1], ['CheckVitals soak', 1]);
  await expectRefused('its input asked for an end after phase 5', ['EndPhase', 1]);
  await world.encrypt(run, 1);
  await expectRefused('a phase has begun already', ['Preflight', 1]);
  await expectRefused('the gate after the work of phase 1', ['Gate soaked', 1], ['CheckVitals soak', 1]);
  await go('Gate worked', 1);
  await expectRefused(`phase 1 of ${appointments} has not soaked`, ['Gate soaked', 1]);
  expect(await call('CheckVitals soak', 1)).toMatchObject({ outcome: 'OK' });
  await expectRefused(`phase 1 of ${appointments} has not soaked`, ['Gate soaked', 1]);
  await expectRefused(notPassed(1), ['CheckVitals batch', 2], ['Gate worked', 2]);
  await world.client.query('update encryption_rollout.runs set until_phase = 1');
  await expectRefused(notPassed(1), ['EndPhase', 1]);
  const slice = phaseOf(defaultPlan, 1).soakMinutes / defaultPlan.soakSliceMinutes;
  const soak = { run, phase: 1, during: 'soak', slice };
  expect(await world.invoke('check-vitals', soak)).toMatchObject({ outcome: 'DONE' });
  await go('Gate soaked', 1);
  await expectRefused('its input asked for an end after phase 1', ['CompleteRollout', 5]);
  world.configure({ approvals: [2] });
  await expectRefused('nobody has said that phase 2 may begin', ['ListWork batches', 2], ['EncryptBatch', 2]);
  world.configure({});
  expect(await call('EncryptBatch', 2)).toMatchObject({ reason: '' });

  await passBefore(world.client, run, 4);
  await expectRefused('the work of phase 4', ['Gate worked', 4]);
  await expectRefused(
    `the trigger of ${appointments} is not on`,
    ['ListWork batches', 4],
    ['EncryptBatch', 4],
  );
  await call('EnableTrigger', 4);
  await passBefore(world.client, run, 5);
  await expectRefused('the work of phase 5', ['AuditRows', 5], ['ListWork audit', 5], ['Gate audited', 5]);
  await world.encrypt(run, 5);
  await expectRefused('the gate after the work of phase 5', ['AuditRows', 5], ['Gate audited', 5]);
  await go('Gate worked', 5);
  await expectRefused(`the audit of ${appointments}`, ['Gate audited', 5]);
  expect(await call('AuditRows', 5)).toMatchObject({ outcome: 'DONE' });
  await go('Gate audited', 5);
});

test('a table that the phase has no work for is not worked on', async () => {
  await passBefore(world.client, run, 1);
  await world.client.query('update encryption_rollout.run_targets set resume_at = 2');
  await expect(call('EncryptBatch', 1)).rejects.toMatchObject(
    refused(`phase 1 has no work for ${appointments}`),
  );
});

test('what a first attempt has passed counts for the next only where that goes on from there', async () => {
  await passBefore(world.client, run, 4);
  await world.client.query('update public.appointments set email_encrypted = null, pii_iv = null');
  world.running.clear();
  run = await world.prepare('two');
  expect(run).toMatchObject({ attempt: 2, resumeAt: 2 });
  await expect(call('EnableTrigger', 4)).rejects.toMatchObject(refused('preflight has not said GO'));
  expect(await call('Preflight', 1)).toMatchObject({ verdict: 'GO' });
  await expect(call('EnableTrigger', 4)).rejects.toMatchObject(
    refused(`${appointments} has not passed the last gate of phase 2`),
  );
  expect(await triggerIsOn(world, appointments)).toBe(false);
});

test('no run is completed by what an earlier attempt has passed', async () => {
  await passBefore(world.client, run, 6);
  world.running.clear();
  run = await world.prepare('two');
  await expect(call('CompleteRollout', 5)).rejects.toMatchObject({ name: 'MissingPrerequisite' });
  expect((await world.client.query('select status from encryption_rollout.runs')).rows).toEqual([
    { status: 'ACTIVE' },
  ]);
});

test('a step of a run that is over says that, and not what it lacks', async () => {
  await world.client.query("update encryption_rollout.runs set status = 'STOPPED', ended_at = now()");
  await expect(call('EncryptBatch', 1)).rejects.toMatchObject({ name: 'RunSuperseded' });
});
