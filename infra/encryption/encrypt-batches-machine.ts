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
import { invoke, machine } from '../machines/tasks.ts';
import { checkVitals, type WatchedMachineProps } from '../pressure/vitals-states.ts';

/**
 * One stretch of a phase: vitals, batch, pause, until EncryptBatch says otherwise. While batches have to wait it looks
 * at the vitals only; what cannot be measured is put to a person.
 * Input `{run, phase}`; output `{outcome: 'CONTINUE' | 'DONE' | 'BREACH', reason, …}`.
 */
export class EncryptBatchesMachine extends Construct {
  readonly machine: StateMachine;

  constructor(scope: Construct, id: string, { names, functions, plan, hold }: WatchedMachineProps) {
    super(scope, id);
    const begin = new Pass(this, 'Begin', {
      parameters: {
        run: JsonPath.objectAt('$.run'),
        phase: JsonPath.numberAt('$.phase'),
        work: { batch: 0 },
        vitals: { slice: 0 },
        loop: { hold: 0 },
      },
    });
    const encryptBatch = invoke(this, 'EncryptBatch', {
      functions,
      payload: {
        run: JsonPath.objectAt('$.run'),
        phase: JsonPath.numberAt('$.phase'),
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
      during: 'batch',
      ok: encryptBatch,
      otherwise: new Succeed(this, 'Breached', { outputPath: '$.vitals' }),
    });

    begin.next(look);
    encryptBatch.next(
      new Choice(this, 'Progress')
        .when(Condition.stringEquals('$.work.outcome', 'MORE'), pause)
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
