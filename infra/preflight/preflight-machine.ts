import {
  Choice,
  Condition,
  type IChainable,
  JsonPath,
  type StateMachine,
  Succeed,
} from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import type { Plan } from '../../lambdas/core/plan/plan.ts';
import { askAgain, noQuestions } from '../gates/hold-machine.ts';
import { invoke, type MachineProps, machine, onError, set } from '../machines/tasks.ts';

interface PreflightMachineProps extends MachineProps {
  readonly plan: Plan;
  readonly hold: StateMachine;
}

/**
 * Whether the rollout may begin, or in a dry run whether it could. What cannot be measured is put to a person, and judged
 * again; after a dry run nobody is asked.
 * Input `{input, dryRun}`, and `run` when it is no dry run; output is the judgement.
 */
export class PreflightMachine extends Construct {
  readonly machine: StateMachine;

  constructor(scope: Construct, id: string, { names, functions, plan, hold }: PreflightMachineProps) {
    super(scope, id);
    const input = JsonPath.objectAt('$.input');
    const onCall = JsonPath.objectAt('$.onCall');
    const judged = new Succeed(this, 'Judged', { outputPath: '$.step' });
    const begin = set(this, 'Begin', '$.holds', noQuestions);
    const countSubscribers = invoke(this, 'CountSubscribers', {
      functions,
      payload: {},
      resultPath: '$.onCall',
    });
    const dryRun = invoke(this, 'DryRun', { functions, payload: { input, onCall }, resultPath: '$.step' });
    const preflight = invoke(this, 'Preflight', {
      functions,
      payload: { run: JsonPath.objectAt('$.run'), input, onCall },
      resultPath: '$.step',
    });
    const kind: IChainable = new Choice(this, 'IsDryRun')
      .when(Condition.booleanEquals('$.dryRun', true), dryRun.next(judged))
      .otherwise(preflight);

    // Whom a page reaches. When it cannot be counted, the checklist says that.
    begin.next(onError(countSubscribers, '$.onCall', kind).next(kind));
    preflight.next(
      new Choice(this, 'Verdict')
        .when(
          Condition.stringEquals('$.step.verdict', 'INCONCLUSIVE'),
          askAgain(this, {
            id: 'Hold',
            hold,
            plan,
            gate: JsonPath.stringAt('$.step.gate'),
            again: countSubscribers,
          }),
        )
        .otherwise(judged),
    );

    this.machine = machine(this, names, 'Preflight', 'Whether a rollout may begin: it only reads', begin);
  }
}
