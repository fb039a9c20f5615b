import { JsonPath, type StateMachine, Succeed } from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { type MachineProps, machine, notify } from '../machines/tasks.ts';

/**
 * Pages for a function: from the subnets of the database there need not be a way to SNS. The name of its execution makes a
 * repeated request the same page.
 * Input `{subject, message}`.
 */
export class PageMachine extends Construct {
  readonly machine: StateMachine;

  constructor(scope: Construct, id: string, { names, topics }: Pick<MachineProps, 'names' | 'topics'>) {
    super(scope, id);
    const page = notify(
      this,
      'NotifyOnCall',
      topics.page,
      JsonPath.stringAt('$.subject'),
      JsonPath.stringAt('$.message'),
    );
    page.next(new Succeed(this, 'Paged'));
    this.machine = machine(this, names, 'Page', 'A page, for a function that has no way to SNS', page);
  }
}
