import {
  Choice,
  Condition,
  Fail,
  JsonPath,
  Pass,
  type StateMachine,
  Succeed,
} from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import type { Target } from '../../lambdas/core/plan/settings.ts';
import { switchOffByHand } from '../../lambdas/core/stopping/by-hand.ts';
import { heardOrNot, invoke, type MachineProps, machine, notify, onError } from '../machines/tasks.ts';
import type { Names } from '../names.ts';

/** Tables whose statements a cause has room for: AWS takes 32,768 characters. */
const mostTables = 50;

/** What to do by hand where a rollback did not finish. */
export function unfinished(names: Names, targets: readonly Target[]): string {
  const others = targets.length - mostTables;
  return `Triggers may still be on. Where the key was being rotated, or a complete table verified (${names.commandLine('status')} says so), a trigger was on before: leave it. Otherwise disable it by hand, now: ${targets.slice(0, mostTables).map(switchOffByHand).join(' ')}${others > 0 ? ` And so for the other ${others} tables.` : ''} Plaintext is never deleted. Then read the failed execution of Rollback, and ${names.runbook('rollbackfailed')}.`;
}

/**
 * Stops a rollout safely and tells the people on call. A step that fails does not keep the later ones from being
 * tried, but for the proof, which does not hold up the page that a trigger may be on; and the execution fails in the end. Its steps: CancelBatches fences the run and ends what is at work, DisableTrigger
 * switches the triggers off, ProvePlaintext counts what is readable, GatherEvidence closes the run and says what was found, and
 * a page is sent. Three roads lead here: a phase that fails (runs/rollout-endings.ts), and from outside the machine an execution
 * that ends before its time and an alarm (stop-from-outside.ts).
 * Input `{run, reason}`; output `{subject, summary, report}`.
 */
export class RollbackMachine extends Construct {
  readonly machine: StateMachine;

  constructor(
    scope: Construct,
    id: string,
    { names, functions, topics, targets }: MachineProps & { readonly targets: readonly Target[] },
  ) {
    super(scope, id);
    const payload = { run: JsonPath.objectAt('$.run'), reason: JsonPath.objectAt('$.reason') };
    const step = (name: 'CancelBatches' | 'DisableTrigger' | 'ProvePlaintext', resultPath: string) =>
      invoke(this, name, { functions, payload, resultPath });

    // First of all, because a running batch holds a lock that switching the trigger off must wait for.
    const cancelBatches = step('CancelBatches', '$.cancelled');
    const disableTrigger = step('DisableTrigger', '$.trigger');
    const provePlaintext = step('ProvePlaintext', '$.plaintext');
    const gatherEvidence = invoke(this, 'GatherEvidence', {
      functions,
      payload: { ...payload, execution: JsonPath.executionId },
      resultPath: '$.evidence',
    });
    const noEvidence = new Pass(this, 'NoEvidence', {
      parameters: {
        subject: names.subject('ROLLBACK FAILED, trigger perhaps on'),
        summary: JsonPath.format(
          'The encryption rollout was stopped, but the evidence could not be gathered. {} The execution: {}',
          unfinished(names, targets),
          JsonPath.executionId,
        ),
      },
      resultPath: '$.evidence',
    });
    const notifyOnCall = notify(
      this,
      'Notify',
      topics.page,
      JsonPath.stringAt('$.evidence.subject'),
      JsonPath.stringAt('$.evidence.summary'),
    );
    const complete = new Choice(this, 'Complete')
      .when(
        Condition.isPresent('$.failure'),
        new Fail(this, 'RollbackIncomplete', {
          error: 'RollbackIncomplete',
          causePath: '$.evidence.summary',
        }),
      )
      .otherwise(new Succeed(this, 'RolledBack', { outputPath: '$.evidence' }));

    onError(cancelBatches, '$.failure', disableTrigger).next(disableTrigger);
    // No page waits for a scan while a trigger may be on.
    onError(disableTrigger, '$.failure', gatherEvidence).next(provePlaintext);
    onError(provePlaintext, '$.failure', gatherEvidence).next(gatherEvidence);
    onError(gatherEvidence, '$.failure', noEvidence).next(notifyOnCall);
    noEvidence.next(notifyOnCall);
    // The rollback stands, whoever heard of it. The parent execution fails for all to see.
    heardOrNot(notifyOnCall, complete);

    this.machine = machine(
      this,
      names,
      'Rollback',
      'Stops a rollout safely: no plaintext is ever touched',
      cancelBatches,
    );
  }
}
