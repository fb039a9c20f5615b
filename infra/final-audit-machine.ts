import { Choice, Condition, JsonPath, type StateMachine, Succeed } from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { invoke, type MachineProps, machine, set } from './tasks.ts';

/**
 * One stretch of the final audit: AuditRows until it says otherwise.
 * Input `{run}`; output `{outcome: 'CONTINUE' | 'DONE', …}`.
 */
export class FinalAuditMachine extends Construct {
  readonly machine: StateMachine;

  constructor(scope: Construct, id: string, { names, functions }: MachineProps) {
    super(scope, id);
    const begin = set(this, 'Begin', '$.audit', { batch: 0 });
    const auditRows = invoke(this, 'AuditRows', {
      functions,
      payload: { run: JsonPath.objectAt('$.run'), batch: JsonPath.numberAt('$.audit.batch') },
      resultPath: '$.audit',
    });

    begin.next(auditRows);
    auditRows.next(
      new Choice(this, 'Progress')
        .when(Condition.stringEquals('$.audit.outcome', 'MORE'), auditRows)
        .otherwise(new Succeed(this, 'Finished', { outputPath: '$.audit' })),
    );

    this.machine = machine(
      this,
      names,
      'FinalAudit',
      'Proves that rows decrypt to their plaintext, all of them',
      begin,
    );
  }
}
