import {
  Choice,
  Condition,
  Fail,
  JsonPath,
  Pass,
  type StateMachine,
  Succeed,
  Wait,
  WaitTime,
} from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import {
  explainFailure,
  heardOrNot,
  invoke,
  type MachineProps,
  machine,
  notify,
  onError,
  set,
} from '../machines/tasks.ts';

/**
 * Option 2 of the plan's rollback, never started by anything but a person: takes the ciphertext of a stopped run away,
 * batch by batch, and tells the people on call how it ended.
 * Input `{run, confirm}`, where `confirm` repeats the run's id; output `{outcome: 'CONTINUE' | 'DONE', summary, …}`.
 */
export class ClearCiphertextMachine extends Construct {
  readonly machine: StateMachine;

  constructor(scope: Construct, id: string, { names, functions, topics }: MachineProps) {
    super(scope, id);
    const begin = set(this, 'Begin', '$.work', { batch: 0 });
    const clearCiphertext = invoke(this, 'ClearCiphertext', {
      functions,
      payload: {
        run: JsonPath.objectAt('$.run'),
        confirm: JsonPath.stringAt('$.confirm'),
        execution: JsonPath.executionId,
        batch: JsonPath.numberAt('$.work.batch'),
      },
      resultPath: '$.work',
    });
    const pause = new Wait(this, 'Pause', { time: WaitTime.secondsPath('$.work.pauseSeconds') });
    const notifyOnCall = notify(
      this,
      'NotifyCleared',
      topics.note,
      'Encryption rollout: ciphertext cleared',
      JsonPath.stringAt('$.work.summary'),
    );
    const finished = new Succeed(this, 'Finished', { outputPath: '$.work' });

    begin.next(clearCiphertext);
    const failed = new Fail(this, 'ClearingFailed', {
      error: 'ClearingFailed',
      causePath: '$.failed.summary',
    });
    const notifyFailed = notify(
      this,
      'NotifyFailed',
      topics.tomorrow,
      'Encryption rollout: clearing failed',
      JsonPath.stringAt('$.failed.summary'),
    );
    const explained = new Pass(this, 'Explain', {
      parameters: {
        summary: JsonPath.format(
          'Clearing the ciphertext stopped with {}: {} Batches until then are cleared, plaintext was not touched. Remove the cause, then ask for it again: it goes on. The execution was {}',
          JsonPath.stringAt('$.cause.Error'),
          JsonPath.stringAt('$.cause.Cause'),
          JsonPath.executionId,
        ),
      },
      resultPath: '$.failed',
    });
    explained.next(notifyFailed);
    heardOrNot(notifyFailed, failed);
    const explain = explainFailure(this, functions, {
      error: '$.cause',
      resultPath: '$.cause',
      next: explained,
      otherwise: explained,
    });
    onError(clearCiphertext, '$.cause', explain).next(
      new Choice(this, 'Progress')
        .when(Condition.stringEquals('$.work.outcome', 'MORE'), pause)
        .otherwise(notifyOnCall),
    );
    pause.next(clearCiphertext);
    // Cleared it is, whoever heard of it.
    heardOrNot(notifyOnCall, finished);

    this.machine = machine(
      this,
      names,
      'ClearCiphertext',
      'Takes the ciphertext of a stopped run away: for a person to start, with a confirmation',
      begin,
    );
  }
}
