import type { ITopic } from 'aws-cdk-lib/aws-sns';
import { Choice, Condition, JsonPath, type StateMachine, Succeed } from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { toldBy } from '../../lambdas/core/telling/chat.ts';
import { invoke, type MachineProps, machine, notify } from '../machines/tasks.ts';

/**
 * One check after a rollout. Its report goes to those who follow the rollout, and first to the people on call when the
 * verdict is not GO. A check that cannot be made fails the execution, which has an alarm of its own.
 * Input `{run, check}`, from a schedule.
 */
export class PostRolloutMachine extends Construct {
  readonly machine: StateMachine;

  constructor(
    scope: Construct,
    id: string,
    { names, functions, topics, updates }: MachineProps & { readonly updates: ITopic },
  ) {
    super(scope, id);
    const check = invoke(this, 'PostRolloutCheck', {
      functions,
      payload: { run: JsonPath.objectAt('$.run'), check: JsonPath.stringAt('$.check') },
      resultPath: '$.result',
    });
    const subject = JsonPath.stringAt('$.result.subject');
    const message = JsonPath.stringAt('$.result.message');
    // The report says the same; a chat follows both topics.
    const page = notify(this, 'Page', topics.page, subject, message, { [toldBy]: { value: 'Updates' } });
    const report = notify(this, 'Report', updates, subject, message);

    check.next(
      new Choice(this, 'Verdict')
        .when(Condition.stringEquals('$.result.verdict', 'GO'), report)
        .otherwise(page),
    );
    page.next(report);
    report.next(new Succeed(this, 'Reported'));

    this.machine = machine(
      this,
      names,
      'PostRolloutChecks',
      'A check after a completed rollout, and its report',
      check,
    );
  }
}
