import { Duration } from 'aws-cdk-lib';
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
import type { Plan } from '../lambdas/core/plan.ts';
import { invoke, type MachineProps, machine, set } from './tasks.ts';

/**
 * A watched wait: it ends early on a breach. CheckVitals counts the slices.
 * Input `{run, phase}`; output `{outcome: 'DONE' | 'BREACH', reason, …}`.
 */
export class SoakMachine extends Construct {
  readonly machine: StateMachine;

  constructor(
    scope: Construct,
    id: string,
    { names, functions, plan }: MachineProps & { readonly plan: Plan },
  ) {
    super(scope, id);
    const begin = set(this, 'Begin', '$.vitals', { slice: 0 });
    const checkVitals = invoke(this, 'CheckVitals', {
      functions,
      payload: {
        run: JsonPath.objectAt('$.run'),
        phase: JsonPath.numberAt('$.phase'),
        during: 'soak',
        slice: JsonPath.numberAt('$.vitals.slice'),
      },
      resultPath: '$.vitals',
    });
    const slice = new Wait(this, 'Slice', {
      time: WaitTime.duration(Duration.minutes(plan.soakSliceMinutes)),
    });

    begin.next(checkVitals);
    checkVitals.next(
      new Choice(this, 'Vitals')
        .when(Condition.stringEquals('$.vitals.outcome', 'OK'), slice)
        .otherwise(new Succeed(this, 'Finished', { outputPath: '$.vitals' })),
    );
    slice.next(checkVitals);

    this.machine = machine(this, names, 'Soak', 'A wait in slices, with a look at the vitals in each', begin);
  }
}
