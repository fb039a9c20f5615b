import {
  Choice,
  Condition,
  Fail,
  type IChainable,
  JsonPath,
  type StateMachine,
  Succeed,
  Wait,
  WaitTime,
} from 'aws-cdk-lib/aws-stepfunctions';
import type { LambdaInvoke } from 'aws-cdk-lib/aws-stepfunctions-tasks';
import type { Construct } from 'constructs';
import type { Plan } from '../../lambdas/core/plan/plan.ts';
import { askAgain } from '../gates/hold-machine.ts';
import { invoke, type MachineProps } from '../machines/tasks.ts';

/** What a machine is drawn from that looks at the vitals. */
export interface WatchedMachineProps extends MachineProps {
  readonly plan: Plan;
  readonly hold: StateMachine;
}

interface Look extends Pick<WatchedMachineProps, 'functions' | 'hold' | 'plan'> {
  /** A number, or its JSON path. */
  readonly phase: number;
  /** The table that is worked on; all of them when it is not given. */
  readonly target?: string;
  /** In a soak nothing has to wait, and no stretch ends early. */
  readonly during: 'batch' | 'soak';
  /** What follows when all is well; it leads back here. */
  readonly ok: IChainable;
  /** What follows the last slice of a soak. */
  readonly done?: IChainable;
}

/**
 * A look at the vitals, and what follows each of its answers. What cannot be measured is put to a person; in front of
 * work, a wait is followed by the next look; a breach fails the execution. Uses `$.run`, `$.vitals` and `$.holds`.
 */
export function checkVitals(
  scope: Construct,
  { functions, hold, plan, phase, target, during, ok, done }: Look,
): LambdaInvoke {
  const task = invoke(scope, 'CheckVitals', {
    functions,
    payload: {
      run: JsonPath.objectAt('$.run'),
      phase,
      ...(target === undefined ? {} : { target }),
      during,
      slice: JsonPath.numberAt('$.vitals.slice'),
    },
    resultPath: '$.vitals',
  });
  const answers = new Choice(scope, 'Vitals');
  const answer = (outcome: string, next: IChainable) =>
    answers.when(Condition.stringEquals('$.vitals.outcome', outcome), next);
  answer('OK', ok);
  if (during === 'batch') {
    const ease = new Wait(scope, 'Ease', { time: WaitTime.secondsPath('$.vitals.waitSeconds') });
    answer('WAIT', ease.next(task));
  }
  answer(
    'HOLD',
    askAgain(scope, {
      id: 'Hold',
      hold,
      plan,
      gate: JsonPath.stringAt('$.vitals.gate'),
      again: task,
    }),
  );
  if (during === 'batch') answer('CONTINUE', new Succeed(scope, 'Continued', { outputPath: '$.vitals' }));
  if (done !== undefined) answer('DONE', done);
  task.next(answers.otherwise(breached(scope, 'Breached', '$.vitals.reason')));
  return task;
}

/** How an execution ends that has met a breach: red in the console, with the reason as its cause. */
export function breached(scope: Construct, id: string, reason: string): Fail {
  return new Fail(scope, id, { error: 'Breach', causePath: reason });
}
