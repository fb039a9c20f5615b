/** The roads to the rollback from outside the machine that no command takes: the console, and an alarm. */
import {
  EventBridgeClient,
  ListRulesCommand,
  ListTargetsByRuleCommand,
  TestEventPatternCommand,
} from '@aws-sdk/client-eventbridge';
import { SFNClient, StopExecutionCommand } from '@aws-sdk/client-sfn';
import { expect, test } from 'vitest';
import { defaultPlan, type PhaseNumber, phaseOf } from '../../lambdas/core/plan/plan.ts';
import { stopMessage } from '../../lambdas/core/stopping/stop-message.ts';
import { faults } from '../../rehearsal/faults.ts';
import { evidence, healthy } from '../lambdas/core/healthy.ts';
import { missingIn, type Page } from '../support/page.ts';
import { alarmWentOff, executionEnded } from './events.ts';
import {
  customerAlarm,
  endOf,
  invoke,
  paged,
  press,
  query,
  received,
  stackName,
  start,
  startMachine,
  statusOfRun,
  theWorld,
  triggers,
  widget,
} from './world.ts';

const rollbackArn = (name: string) =>
  `${theWorld().outputs.StateMachineArn.replace(':stateMachine:', ':execution:').replace('EncryptionRollout', 'Rollback')}:${name}`;

/** Starts the rollout and waits until it has begun its work. */
async function startWork(): Promise<{ executionArn: string; rollback: string }> {
  const executionArn = await start();
  const rollback = async () => {
    const found = await query(
      `select p.run_id, p.attempt from encryption_rollout.phases p
       join encryption_rollout.runs r on r.id = p.run_id and r.attempt = p.attempt where r.execution = $1`,
      [executionArn],
    );
    return found[0] && rollbackArn(`${found[0].run_id}-${found[0].attempt}-rollback`);
  };
  await expect.poll(rollback, { timeout: 120_000, interval: 100 }).toBeDefined();
  return { executionArn, rollback: await rollback() };
}

export function stopping(): void {
  test('a person stops the execution: the rollback is started, once, and pages', async () => {
    await paged();
    const { executionArn, rollback } = await startWork();
    await new SFNClient().send(new StopExecutionCommand({ executionArn }));
    // From the event that this emits, through the deployed rule and StopRollout.
    await expect
      .poll(statusOfRun)
      .toMatchObject({ status: 'STOPPED', stop_reason: `The execution ${executionArn} ended as ABORTED` });
    expect(await endOf(rollback)).toMatchObject({ status: 'SUCCEEDED' });
    expect(await triggers()).toEqual([false, false]);
    expect(await paged()).toMatch(/: stopped: .*ABORTED/s);
    // EventBridge delivers at least once.
    expect(await invoke('StopRollout', executionEnded(executionArn, 'ABORTED'))).toMatchObject({
      outcome: 'NOTHING',
    });
  });

  test('buttons of the dashboard pause, resume and stop it; the page that a queue receives has what a person needs', async () => {
    expect(await widget()).toContain('To go on, repair the cause');
    await received();
    const { executionArn, rollback } = await startWork();
    expect(await press('Pause', 'a sale')).toMatch(/Paused by R\. Roe \(typed on the dashboard .*: a sale/);
    expect(await press('Resume')).toMatch(/class="said">Resumed/);
    expect(await press('Abort', 'checkout is slow')).toContain('The execution is stopped.');
    expect(await endOf(executionArn)).toMatchObject({
      status: 'ABORTED',
      error: 'AbortedByOperator',
      cause: expect.stringMatching(/^Aborted by R\. Roe \(typed on the dashboard .*\): checkout is slow$/),
    });
    await expect
      .poll(statusOfRun)
      .toMatchObject({ status: 'STOPPED', stop_reason: expect.stringContaining('checkout is slow') });
    expect(await endOf(rollback)).toMatchObject({ status: 'SUCCEEDED' });
    expect(await triggers()).toEqual([false, false]);
    const pages = await received();
    expect(pages).toHaveLength(1);
    for (const page of pages) expect(missingIn(page), page.message).toEqual([]);
    const { by } = (
      await query(
        "select detail ->> 'by' as by from encryption_rollout.events where event = 'PAUSED' order by id desc limit 1",
      )
    )[0];
    expect(by).toMatch(/request [\da-f-]{36}\)$/);
  });

  test('the page of every fault of a rehearsal reaches a queue as it was written', async () => {
    const at = (phase: number, what: string) =>
      `${phaseOf(defaultPlan, phase as PhaseNumber).title}: ${what}`;
    const why: Record<string, string> = {
      'decryption-failure': at(
        2,
        'Gate: public.appointments: Decryption matches plaintext: expected all of 20, measured 0',
      ),
      'error-spike': at(
        3,
        'CheckVitals: public.appointments: Error rate: expected not above 1 %, measured 4 %',
      ),
      'lock-contention': at(
        3,
        'EncryptBatch: public.appointments: Database locks: expected a wait of at most 100 ms, measured 2 s',
      ),
      'high-cpu': at(3, 'CheckVitals: Database CPU: expected not above 80 %, measured 95 %'),
      'no-metric': at(3, 'CheckVitals: Decision of a person: expected go, measured no-go by R. Roe'),
      'customer-alarm': at(
        3,
        'CheckVitals: Customer-facing alarms: expected OK, measured in ALARM: api-latency',
      ),
      'trigger-failure': at(
        4,
        'Gate: public.appointments: Canary insert: expected encrypted, measured not encrypted',
      ),
      'wrong-key': at(2, 'Gate: Encryption key: expected the check value 1a2b, measured 3c4d'),
    };
    expect(Object.keys(why).sort()).toEqual(Object.keys(faults).sort());
    await received();
    const { health } = healthy(24.5);
    const written: Page[] = [];
    for (const reason of Object.values(why)) {
      const page = stopMessage(
        evidence(
          [
            {
              name: 'public.appointments',
              purpose: 'encrypt',
              triggerEnabled: false,
              health,
              errors: {},
              switchOff: null,
            },
          ],
          reason,
          2_000,
        ),
        {
          stack: stackName,
          execution: `${theWorld().outputs.StateMachineArn.replace(':stateMachine:', ':execution:')}:one`,
          ownAlarms: [],
          runbookUrl: null,
          commandLine: (words) => `npm run rollout -- ${words}`,
        },
      );
      written.push(page);
      expect(await endOf(await startMachine('Page', page))).toMatchObject({ status: 'SUCCEEDED' });
    }
    const pages: Page[] = [];
    const all = async () => {
      pages.push(...(await received()));
      return pages.length;
    };
    await expect.poll(all).toBe(written.length);
    const byText = (one: Page, other: Page) => (one.message < other.message ? -1 : 1);
    expect(pages.sort(byText)).toEqual(written.sort(byText));
    for (const page of pages) expect(missingIn(page), page.message).toEqual([]);
  });

  test('an alarm stops the execution and starts the rollback', async () => {
    const { executionArn, rollback } = await startWork();
    expect(await invoke('StopRollout', alarmWentOff(`${stackName}-MissingIvs`))).toMatchObject({
      outcome: 'ROLLBACK',
    });
    expect(await endOf(rollback)).toMatchObject({ status: 'SUCCEEDED' });
    expect((await endOf(executionArn)).status).toBe('ABORTED');
    expect(await triggers()).toEqual([false, false]);
    expect(await statusOfRun()).toMatchObject({
      status: 'STOPPED',
      // Its own, or within that of the execution that it has ended.
      stop_reason: expect.stringContaining(`The alarm ${stackName}-MissingIvs went off`),
    });
  });

  test('the deployed rules match these events, lead to StopRollout, and match no others', async () => {
    const events = new EventBridgeClient();
    const { Rules: all = [] } = await events.send(new ListRulesCommand({ NamePrefix: stackName }));
    // The others tell the stakeholders, or wake Monitor.
    const Rules = all.filter(({ Name }) => !/-Tell-|ServerIsBack/.test(Name ?? ''));
    const matching = async (event: unknown) => {
      const names: (string | undefined)[] = [];
      for (const { Name, EventPattern } of Rules) {
        const test = new TestEventPatternCommand({ EventPattern, Event: JSON.stringify(event) });
        if ((await events.send(test)).Result) names.push(Name);
      }
      return names;
    };
    const execution = (machine: string, status: string) =>
      executionEnded(`arn:aws:states:us-east-1:000000000000:execution:${stackName}-${machine}:one`, status);
    for (const status of ['ABORTED', 'FAILED', 'TIMED_OUT'])
      for (const machine of ['EncryptionRollout', 'Rollback'])
        expect(await matching(execution(machine, status))).toEqual([`${stackName}-ExecutionEnded`]);
    expect(await matching(execution('EncryptionRollout', 'SUCCEEDED'))).toEqual([]);
    expect(await matching(execution('EncryptBatches', 'FAILED'))).toEqual([]);
    for (const name of [`${stackName}-DecryptionFailures`, `${stackName}-MissingIvs`, customerAlarm])
      expect(await matching(alarmWentOff(name))).toEqual([`${stackName}-AlarmWentOff`]);
    expect(await matching(alarmWentOff(customerAlarm, 'OK'))).toEqual([]);
    expect(await matching(alarmWentOff('somebody-elses'))).toEqual([]);
    for (const { Name } of Rules) {
      const { Targets = [] } = await events.send(new ListTargetsByRuleCommand({ Rule: Name }));
      expect(Targets.map(({ Arn }) => Arn?.split(':').at(-1))).toEqual([`${stackName}-StopRollout`]);
    }
  });
}
