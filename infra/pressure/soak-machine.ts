import { Duration } from 'aws-cdk-lib';
import { JsonPath, Pass, type StateMachine, Succeed, Wait, WaitTime } from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { noQuestions } from '../gates/hold-machine.ts';
import { machine } from '../machines/tasks.ts';
import { checkVitals, type WatchedMachineProps } from './vitals-states.ts';

/**
 * A watched wait: a breach ends it early, as failed. CheckVitals counts the slices. What cannot be measured is put to a
 * person. Input `{run, phase}`; output `{outcome: 'DONE', …}`.
 */
export class SoakMachine extends Construct {
  readonly machine: StateMachine;

  constructor(scope: Construct, id: string, { names, functions, plan, hold }: WatchedMachineProps) {
    super(scope, id);
    const begin = new Pass(this, 'Begin', {
      parameters: {
        run: JsonPath.objectAt('$.run'),
        phase: JsonPath.numberAt('$.phase'),
        vitals: { slice: 0 },
        holds: noQuestions,
      },
    });
    const slice = new Wait(this, 'Slice', {
      time: WaitTime.duration(Duration.minutes(plan.soakSliceMinutes)),
    });

    const look = checkVitals(this, {
      functions,
      hold,
      plan,
      phase: JsonPath.numberAt('$.phase'),
      during: 'soak',
      ok: slice,
      done: new Succeed(this, 'Finished', { outputPath: '$.vitals' }),
    });

    begin.next(look);
    slice.next(look);

    this.machine = machine(this, names, 'Soak', 'A wait in slices, with a look at the vitals in each', begin);
  }
}
