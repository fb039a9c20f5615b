import {
  Choice,
  Condition,
  JsonPath,
  type StateMachine,
  Succeed,
  Wait,
  WaitTime,
} from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { invoke, type MachineProps, machine, set } from './tasks.ts';

/**
 * One stretch of a phase: vitals, batch, pause, until EncryptBatch says otherwise.
 * Input `{run, phase}`; output `{outcome: 'CONTINUE' | 'DONE' | 'BREACH', reason, …}`.
 */
export class EncryptBatchesMachine extends Construct {
  readonly machine: StateMachine;

  constructor(scope: Construct, id: string, { names, functions }: MachineProps) {
    super(scope, id);
    const begin = set(this, 'Begin', '$.work', { batch: 0 });
    const checkVitals = invoke(this, 'CheckVitals', {
      functions,
      payload: { run: JsonPath.objectAt('$.run'), phase: JsonPath.numberAt('$.phase'), during: 'batch' },
      resultPath: '$.vitals',
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

    begin.next(checkVitals);
    checkVitals.next(
      new Choice(this, 'Vitals')
        .when(Condition.stringEquals('$.vitals.outcome', 'OK'), encryptBatch)
        .otherwise(new Succeed(this, 'Breached', { outputPath: '$.vitals' })),
    );
    encryptBatch.next(
      new Choice(this, 'Progress')
        .when(Condition.stringEquals('$.work.outcome', 'MORE'), pause)
        .otherwise(new Succeed(this, 'Finished', { outputPath: '$.work' })),
    );
    pause.next(checkVitals);

    this.machine = machine(
      this,
      names,
      'EncryptBatches',
      'One stretch of batches with a look at the vitals before each',
      begin,
    );
  }
}
