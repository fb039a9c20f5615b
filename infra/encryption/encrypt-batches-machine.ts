import {
  Choice,
  Condition,
  JsonPath,
  Pass,
  type StateMachine,
  Succeed,
  Wait,
  WaitTime,
} from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { noQuestions } from '../gates/hold-machine.ts';
import { invoke, machine } from '../machines/tasks.ts';
import { breached, checkVitals, type WatchedMachineProps } from '../pressure/vitals-states.ts';

/**
 * One stretch of a phase's work on a slice of a table: vitals, batch, pause, until EncryptBatch says otherwise. While batches have to
 * wait it looks at the vitals only; what cannot be measured is put to a person.
 * Input `{run, phase, target, slices, slice}`; output `{outcome: 'CONTINUE' | 'DONE', …}`; it fails on a breach.
 */
export class EncryptBatchesMachine extends Construct {
  readonly machine: StateMachine;

  constructor(scope: Construct, id: string, { names, functions, plan, hold }: WatchedMachineProps) {
    super(scope, id);
    const target = JsonPath.stringAt('$.target');
    const slices = JsonPath.numberAt('$.slices');
    const slice = JsonPath.numberAt('$.slice');
    const begin = new Pass(this, 'Begin', {
      parameters: {
        run: JsonPath.objectAt('$.run'),
        phase: JsonPath.numberAt('$.phase'),
        target,
        slices,
        slice,
        work: { batch: 0 },
        vitals: { slice: 0 },
        holds: noQuestions,
      },
    });
    const encryptBatch = invoke(this, 'EncryptBatch', {
      functions,
      payload: {
        run: JsonPath.objectAt('$.run'),
        phase: JsonPath.numberAt('$.phase'),
        target,
        slices,
        slice,
        execution: JsonPath.executionName,
        batch: JsonPath.numberAt('$.work.batch'),
      },
      resultPath: '$.work',
    });
    const pause = new Wait(this, 'Pause', { time: WaitTime.secondsPath('$.work.pauseSeconds') });

    const look = checkVitals(this, {
      functions,
      hold,
      plan,
      phase: JsonPath.numberAt('$.phase'),
      target,
      during: 'batch',
      ok: encryptBatch,
    });

    begin.next(look);
    encryptBatch.next(
      new Choice(this, 'Progress')
        .when(Condition.stringEquals('$.work.outcome', 'MORE'), pause)
        .when(
          Condition.stringEquals('$.work.outcome', 'BREACH'),
          breached(this, 'BatchBreached', '$.work.reason'),
        )
        .otherwise(new Succeed(this, 'Finished', { outputPath: '$.work' })),
    );
    pause.next(look);

    this.machine = machine(
      this,
      names,
      'EncryptBatches',
      'One stretch of batches with a look at the vitals before each',
      begin,
    );
  }
}
