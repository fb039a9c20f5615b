import { Choice, Condition, JsonPath, Pass, type StateMachine, Succeed } from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { noQuestions } from '../gates/hold-machine.ts';
import { invoke, machine } from '../machines/tasks.ts';
import { checkVitals, type WatchedMachineProps } from '../pressure/vitals-states.ts';

/**
 * One stretch of the final audit of a slice: a look at the vitals, then AuditRows, until it says otherwise. Reading the whole table
 * is work for the database, too.
 * Input `{run, slices, slice}`; output `{outcome: 'CONTINUE' | 'DONE', …}`; it fails on a breach.
 */
export class FinalAuditMachine extends Construct {
  readonly machine: StateMachine;

  constructor(scope: Construct, id: string, { names, functions, plan, hold }: WatchedMachineProps) {
    super(scope, id);
    const run = JsonPath.objectAt('$.run');
    const part = { slices: JsonPath.numberAt('$.slices'), slice: JsonPath.numberAt('$.slice') };
    const begin = new Pass(this, 'Begin', {
      parameters: { run, ...part, audit: { batch: 0 }, vitals: { slice: 0 }, holds: noQuestions },
    });
    const auditRows = invoke(this, 'AuditRows', {
      functions,
      payload: { run, ...part, batch: JsonPath.numberAt('$.audit.batch') },
      resultPath: '$.audit',
    });
    const look = checkVitals(this, {
      functions,
      hold,
      plan,
      phase: 5,
      during: 'batch',
      ok: auditRows,
    });

    begin.next(look);
    auditRows.next(
      new Choice(this, 'Progress')
        .when(Condition.stringEquals('$.audit.outcome', 'MORE'), look)
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
