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
import { invoke, type MachineProps, machine } from '../machines/tasks.ts';

/** Snapshots take minutes to hours, and nobody is in a hurry here. */
const betweenLooks = Duration.minutes(5);

/**
 * Takes a backup where that is wanted and needed, and waits for it. Whether there is one, preflight judges.
 * Input `{run}`.
 */
export class TakeBackupMachine extends Construct {
  readonly machine: StateMachine;

  constructor(scope: Construct, id: string, { names, functions }: MachineProps) {
    super(scope, id);
    const takeBackup = invoke(this, 'TakeBackup', {
      functions,
      payload: { run: JsonPath.objectAt('$.run') },
      resultPath: '$.backup',
    });
    const wait = new Wait(this, 'WaitForBackup', { time: WaitTime.duration(betweenLooks) });
    takeBackup.next(
      new Choice(this, 'Backup')
        .when(Condition.stringEquals('$.backup.outcome', 'WAIT'), wait)
        .otherwise(new Succeed(this, 'Ready', { outputPath: '$.backup' })),
    );
    wait.next(takeBackup);
    this.machine = machine(this, names, 'TakeBackup', 'Takes a backup and waits for it', takeBackup);
  }
}
