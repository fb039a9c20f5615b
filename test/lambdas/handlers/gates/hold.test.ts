import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { AskPersonOutput, PrepareDatabaseOutput } from '../../../../lambdas/core/payloads.ts';
import { moment } from '../../../../lambdas/core/telling/time.ts';
import { AwsError } from '../../../../rehearsal/aws/aws-world.ts';
import { begunWorlds, type TestWorld } from '../../world.ts';

const gate = 'Phase 1 Initial Batch: Gate';
const token = 'AQC4AAAAKgAAAAMAAAAA-the-token-of-the-task';

let world: TestWorld;
let run: PrepareDatabaseOutput;
/** Answers that reached a waiting execution. */
let answers: [string, unknown][];
const begun = begunWorlds(400);
beforeEach(async () => {
  [world, run] = await begun();
  answers = [];
  world.aws.world.succeedTask = (given, output) => {
    answers.push([given, output]);
    return true;
  };
});
afterEach(async () => {
  world.aws.world.disturb = undefined;
  world.aws.world.succeedTask = undefined;
  await world.stop();
});

const judge = () => world.inTurn('gate', { run, phase: 1, stage: 'worked' });
const ask = (execution = 'hold-1', asked = gate): Promise<AskPersonOutput> =>
  world.invoke('ask-person', { run, gate: asked, execution });
const wait = (hold: string, given = token) => world.invoke('await-decision', { run, hold, token: given });
const decide = (hold: string, decision: string, by = 'R. Roe') =>
  world.invoke('operate', { command: 'decide', by, hold, decision });
const expire = (hold: string) => world.invoke('expire-hold', { run, hold });
const events = async () =>
  (await world.client.query('select event, detail from encryption_rollout.events order by id')).rows;

/** A gate that cannot read the customers' alarm, and the hold about it. */
async function inconclusive(): Promise<AskPersonOutput> {
  await world.encrypt(run, 1);
  world.aws.world.alarms.delete('api-5xx');
  expect((await judge()).verdict).toBe('INCONCLUSIVE');
  return ask();
}

describe('a hold', () => {
  test('says what was measured, until when, and exactly how to answer', async () => {
    const { hold, message, offers } = await inconclusive();
    const buttons = ['go', 'no-go', 'retry', 'pause', 'abort'];
    expect(JSON.parse(offers)).toEqual({
      deployment: 'Payments',
      run: run.id,
      attempt: run.attempt,
      hold,
      buttons,
    });
    expect(hold).toMatch(/^hold-[2-9a-z]{6}$/);
    expect(message).toContain(
      'Customer-facing alarms: expected none in ALARM, measured none; no such alarm: api-5xx',
    );
    for (const decision of ['go', 'no-go', 'retry'])
      expect(message).toContain(`npm run rollout -- decide ${hold} ${decision} --stack Payments\n`);
    const { rows } = await world.client.query(
      'select unknown, expires_at, asked_at from encryption_rollout.holds',
    );
    expect(rows[0].unknown).toEqual(['Customer-facing alarms']);
    expect(message).toContain(moment(rows[0].expires_at));
    expect((rows[0].expires_at - rows[0].asked_at) / 3_600_000).toBeCloseTo(12, 2);
  });

  test('asked about twice by one execution is one question; by the next, another', async () => {
    const first = await inconclusive();
    expect(await ask()).toEqual(first);
    expect((await ask('hold-2')).hold).not.toBe(first.hold);
    expect((await events()).filter(({ event }) => event === 'HOLD_ASKED')).toHaveLength(2);
  });

  test('go: a gate that takes long to judge once more does not ask again', async () => {
    world.configure({ plan: { goMinutes: 10 } });
    const { hold } = await inconclusive();
    await decide(hold, 'go');
    await world.client.query(
      "update encryption_rollout.holds set decided_at = decided_at - interval '14 minutes'",
    );
    expect((await judge()).verdict).toBe('GO');
  });

  test('go: the execution goes on, and the gate passes with what was unknown accepted', async () => {
    const { hold } = await inconclusive();
    await wait(hold);
    expect(answers).toEqual([]);
    await decide(hold, 'go');
    expect(answers).toEqual([[token, { decision: 'go' }]]);
    const judgement = await judge();
    expect(judgement.verdict).toBe('GO');
    expect(judgement.criteria).toContainEqual(
      expect.objectContaining({ measured: 'none; no such alarm: api-5xx; accepted by R. Roe', passed: true }),
    );
  });

  test('one answer is for every writer who asks the same, and given once more for those whom it has not reached', async () => {
    const { hold } = await inconclusive();
    const other = await ask('hold-2');
    await wait(hold);
    await wait(other.hold, 'the other token');
    world.aws.world.disturb = (operation) => {
      if (operation === 'SendTaskSuccess' && answers.length === 1)
        throw new AwsError('ThrottlingException', 'later');
    };
    await expect(decide(hold, 'go')).rejects.toThrow('Give it once more.');
    expect(answers).toHaveLength(1);
    world.aws.world.disturb = undefined;
    await decide(hold, 'go');
    expect(new Set(answers.map(([given]) => given))).toEqual(new Set([token, 'the other token']));
  });

  test('go does not help against an alarm that rings by now', async () => {
    const { hold } = await inconclusive();
    await decide(hold, 'go');
    world.aws.world.alarms.set('api-5xx', 'ALARM');
    expect((await judge()).verdict).toBe('NO_GO');
  });

  test('no-go: NO_GO, with the name of who decided', async () => {
    const { hold } = await inconclusive();
    await decide(hold, 'no-go');
    expect((await judge()).reason).toContain(`no-go by R. Roe (${hold})`);
  });

  test('nobody answers: NO_GO, and it is too late to decide', async () => {
    const { hold } = await inconclusive();
    await wait(hold);
    await expire(hold);
    await expire(hold);
    expect((await judge()).reason).toContain('no answer in time');
    await expect(decide(hold, 'go')).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringMatching(/expired at .* counts as no-go/),
    });
    expect((await events()).filter(({ event }) => event === 'HOLD_EXPIRED')).toHaveLength(1);
    expect(answers).toEqual([]);
  });

  test('retry: judged afresh', async () => {
    const { hold } = await inconclusive();
    await decide(hold, 'retry');
    expect((await judge()).verdict).toBe('INCONCLUSIVE');
    world.aws.world.alarms.set('api-5xx', 'OK');
    expect((await judge()).verdict).toBe('GO');
  });

  test('answered before the execution waits: it goes on at once', async () => {
    const { hold } = await inconclusive();
    await decide(hold, 'go');
    expect(answers).toEqual([]);
    await wait(hold);
    await wait(hold);
    expect(answers).toEqual([
      [token, { decision: 'go' }],
      [token, { decision: 'go' }],
    ]);
  });

  test('answered while the time-out fires: the answer stands, though nobody waits for it', async () => {
    const { hold } = await inconclusive();
    await wait(hold);
    world.aws.world.succeedTask = () => false;
    await decide(hold, 'go');
    await expire(hold);
    expect((await judge()).verdict).toBe('GO');
  });

  test('whose answer was lost on its way can be given again by anybody, and no other one', async () => {
    const { hold } = await inconclusive();
    await wait(hold);
    world.aws.world.disturb = (operation) => {
      if (operation === 'SendTaskSuccess') throw new AwsError('InvalidToken', `Invalid token: ${token}`);
    };
    const lost = await decide(hold, 'go').catch((error: Error) => error);
    expect(lost).toMatchObject({ name: 'TransientError' });
    expect(String(lost)).not.toContain(token);
    world.aws.world.disturb = undefined;
    await expect(decide(hold, 'no-go')).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringMatching(/decided already: go by R\. Roe at 20/),
    });
    await decide(hold, 'go', 'J. Doe');
    expect(answers).toEqual([[token, { decision: 'go' }]]);
    expect((await events()).filter(({ event }) => event === 'HOLD_DECIDED')).toHaveLength(1);
  });

  test('that two executions ask about is answered once, whoever answers which of them at the same moment', async () => {
    const holds = [await inconclusive(), await ask('hold-2')].map(({ hold }) => hold);
    const other = await world.connect();
    await other.query('begin; select from encryption_rollout.holds for update');
    const decisions = holds.map((hold, each) =>
      decide(hold, 'go', `R. Roe ${each}`).then(
        () => 'decided',
        (error: Error) => error.message,
      ),
    );
    await expect
      .poll(async () => {
        const { rows } = await world.client.query(
          "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
        );
        return rows.length;
      })
      .toBe(2);
    await other.query('commit');
    expect(await Promise.all(decisions)).toEqual(['decided', 'decided']);
    const { rows } = await world.client.query(
      'select decision, count(distinct decided_by)::integer as by from encryption_rollout.holds group by decision',
    );
    expect(rows).toEqual([{ decision: 'go', by: 1 }]);
  });

  test('of another run, or of none, cannot be decided', async () => {
    await expect(decide('hold-nobody', 'go')).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringContaining('There is no hold hold-nobody'),
    });
    const { hold } = await inconclusive();
    world.running.clear();
    await world.prepare('two');
    await expect(decide(hold, 'go')).rejects.toMatchObject({
      message: expect.stringContaining('attempt 1 of run'),
    });
  });

  test('cannot be asked by an attempt that is over', async () => {
    await inconclusive();
    world.running.clear();
    await world.prepare('two');
    await expect(ask('hold-2')).rejects.toMatchObject({ name: 'RunSuperseded' });
  });
});

describe('a go about the vitals', () => {
  const look = () => world.inTurn('check-vitals', { run, phase: 1, during: 'batch', slice: 0 });
  const accepted = async () => (await world.invoke('operate', { command: 'status' })).status.accepted;
  /** As if the answer had been given so long ago. */
  const age = (minutes: number) =>
    world.client.query(
      'update encryption_rollout.holds set decided_at = decided_at - make_interval(mins => $1)',
      [minutes],
    );
  const vanish = () => world.aws.world.alarms.delete('api-5xx');
  let page: string;
  beforeEach(async () => {
    vanish();
    const { gate } = await look();
    const { hold, message } = await ask('hold-1', gate);
    page = message;
    await decide(hold, 'go');
  });

  test('stands for the time that page and status say; then somebody is asked anew', async () => {
    expect(page).toContain('on your word, for 12 h, at most until the phase ends; then you are asked anew:');
    await age(11 * 60);
    expect(await look()).toMatchObject({ outcome: 'OK' });
    expect(await accepted()).toEqual([
      {
        criteria: ['Customer-facing alarms'],
        by: 'R. Roe',
        until: expect.stringMatching(/^20.*Z$/),
      },
    ]);
    await age(60);
    expect(await look()).toMatchObject({ outcome: 'HOLD' });
    expect(await accepted()).toEqual([]);
  });

  test('stands as long as the deployment says', async () => {
    world.configure({ plan: { goMinutes: 30 } });
    await age(31);
    expect(await look()).toMatchObject({ outcome: 'HOLD' });
    expect((await ask('hold-2', 'Phase 1 Initial Batch: CheckVitals')).message).toContain('for 30 min,');
  });

  test('does not help what comes back and fails, and stands when it vanishes again', async () => {
    world.aws.world.alarms.set('api-5xx', 'ALARM');
    expect(await look()).toMatchObject({
      outcome: 'BREACH',
      reason: expect.stringContaining('measured api-5xx'),
    });
    world.aws.world.alarms.set('api-5xx', 'OK');
    expect(await look()).toMatchObject({ outcome: 'OK' });
    vanish();
    expect(await look()).toMatchObject({ outcome: 'OK' });
  });

  test('is no word about the next phase, nor in the next attempt', async () => {
    const next = { run, phase: 2, during: 'batch', slice: 0 };
    expect(await world.inTurn('check-vitals', next)).toMatchObject({ outcome: 'HOLD' });
    expect(await accepted()).toEqual([]);
    world.running.clear();
    run = await world.prepare('two');
    expect(await look()).toMatchObject({ outcome: 'HOLD' });
  });
});

describe('an approval', () => {
  const approve = () => world.inTurn('gate', { run, phase: 3, stage: 'approval' });
  const name = 'Phase 3 Bulk Migration: Approval';

  test('is a gate that waits for a person, and then passes', async () => {
    expect(await approve()).toMatchObject({ gate: name, verdict: 'INCONCLUSIVE' });
    const { hold } = await ask('hold-1', name);
    await decide(hold, 'go');
    expect(await approve()).toMatchObject({
      verdict: 'GO',
      criteria: [expect.objectContaining({ measured: 'not given yet; accepted by R. Roe' })],
    });
    // The phase has not even begun.
    const { rows } = await world.client.query(
      'select number from encryption_rollout.phases where number = 3',
    );
    expect(rows).toEqual([]);
  });

  test('is asked for as one: nothing is unknown, and there is nothing to measure once more', async () => {
    await approve();
    const { hold, message } = await ask('hold-1', name);
    expect(message).toContain(`waits for a person to approve ${name.replace(': Approval', '')} (${hold}).`);
    expect(message).toContain('Where it is: npm run rollout -- status --stack Payments');
    expect(message).toContain(`\nBegin it:\n  npm run rollout -- decide ${hold} go --stack Payments`);
    expect(message).not.toMatch(/retry|without knowing|measured/);
    // With what the phases before have done, and what this one will do.
    expect(message).toMatch(/\nSo far: 0 of \d+ rows encrypted \(0 %\):\n.*\nNext: /s);
    await expect(decide(hold, 'retry')).rejects.toMatchObject({
      name: 'InvalidInput',
      message: expect.stringContaining('Expected go or no-go'),
    });
    expect((await world.invoke('operate', { command: 'status' })).status.lastGate.gate).toBe('Preflight');
  });

  test('that is denied is NO_GO', async () => {
    await approve();
    const { hold } = await ask('hold-1', name);
    await decide(hold, 'no-go');
    expect(await approve()).toMatchObject({ verdict: 'NO_GO' });
  });
});

test('preflight without a verdict leaves the run open for a person; their no-go closes it', async () => {
  const preflight = () => world.invoke('preflight', { run, input: {}, onCall: { subscribers: 1 } });
  const status = async () =>
    (await world.client.query('select status from encryption_rollout.runs')).rows[0].status;
  world.aws.world.alarms.delete('api-5xx');
  expect(await preflight()).toMatchObject({ verdict: 'INCONCLUSIVE' });
  expect(await status()).toBe('ACTIVE');
  const { hold, message } = await ask('hold-1', 'Preflight');
  expect(message).toContain('Do not begin:\n');
  await decide(hold, 'no-go');
  expect(await preflight()).toMatchObject({ verdict: 'NO_GO' });
  expect(await status()).toBe('STOPPED');
});

test('the token is in no answer, no event, no record but its own', async () => {
  const { hold } = await inconclusive();
  const said = [await wait(hold), await decide(hold, 'go'), await judge(), await events()];
  said.push(await world.invoke('operate', { command: 'status' }));
  said.push(await world.invoke('operate', { command: 'report' }));
  expect(JSON.stringify(said)).not.toContain(token);
  for (const table of ['runs', 'gates', 'events', 'phases']) {
    const { rows } = await world.client.query(
      `select to_jsonb(t)::text as text from encryption_rollout.${table} as t`,
    );
    expect(rows.map(({ text }) => text).join()).not.toContain(token);
  }
});
