import { Duration } from 'aws-cdk-lib';
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
import type { Plan } from '../lambdas/core/plan.ts';
import { askAgain, nameOfHold } from './hold-machine.ts';
import { invoke, type MachineProps, machine } from './tasks.ts';

/**
 * A watched wait: it ends early on a breach. CheckVitals counts the slices. What cannot be measured is put to a person.
 * Input `{run, phase}`; output `{outcome: 'DONE' | 'BREACH', reason, …}`.
 */
export class SoakMachine extends Construct {
  readonly machine: StateMachine;

  constructor(
    scope: Construct,
    id: string,
    { names, functions, plan, hold }: MachineProps & { readonly plan: Plan; readonly hold: StateMachine },
  ) {
    super(scope, id);
    const begin = new Pass(this, 'Begin', {
      parameters: {
        run: JsonPath.objectAt('$.run'),
        phase: JsonPath.numberAt('$.phase'),
        vitals: { slice: 0 },
        loop: { hold: 0 },
      },
    });
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
        .when(
          Condition.stringEquals('$.vitals.outcome', 'HOLD'),
          askAgain(this, {
            id: 'Hold',
            hold,
            plan,
            name: nameOfHold(),
            gate: JsonPath.stringAt('$.vitals.gate'),
            again: checkVitals,
          }),
        )
        .otherwise(new Succeed(this, 'Finished', { outputPath: '$.vitals' })),
    );
    slice.next(checkVitals);

    this.machine = machine(this, names, 'Soak', 'A wait in slices, with a look at the vitals in each', begin);
  }
}
