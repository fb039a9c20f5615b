import { ArnFormat, RemovalPolicy, Stack } from 'aws-cdk-lib';
import { Effect, PolicyDocument, PolicyStatement, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { ScheduleGroup } from 'aws-cdk-lib/aws-scheduler';
import { Construct } from 'constructs';
import type { Names } from '../names.ts';

/**
 * Where the schedules of the checks after a rollout are made, and who starts the checks: EventBridge Scheduler, with
 * leave for the machine PostRolloutChecks alone. The group takes its schedules along when the stack is deleted, and
 * counts for all of them what could not be started: AWS has no such metric of a single schedule.
 */
export class CheckSchedules extends Construct {
  readonly group: ScheduleGroup;
  readonly role: Role;

  constructor(scope: Construct, id: string, { names }: { names: Names }) {
    super(scope, id);
    const { account } = Stack.of(this);
    // By name, because the machine is drawn from functions that know this role.
    const machineArn = Stack.of(this).formatArn({
      service: 'states',
      resource: 'stateMachine',
      resourceName: names.of('PostRolloutChecks'),
      arnFormat: ArnFormat.COLON_RESOURCE_NAME,
    });
    this.group = new ScheduleGroup(this, 'Group', {
      scheduleGroupName: names.of('Checks'),
      removalPolicy: RemovalPolicy.DESTROY,
    });
    this.role = new Role(this, 'Role', {
      // IAM takes Latin letters here, which a table's name need not be made of.
      description: `Starts the checks after a rollout, by the schedules of ${names.of('Checks')}`,
      assumedBy: new ServicePrincipal('scheduler.amazonaws.com', {
        conditions: { StringEquals: { 'aws:SourceAccount': account } },
      }),
      inlinePolicies: {
        StartChecks: new PolicyDocument({
          statements: [
            new PolicyStatement({
              effect: Effect.ALLOW,
              actions: ['states:StartExecution'],
              resources: [machineArn],
            }),
          ],
        }),
      },
    });
  }
}
