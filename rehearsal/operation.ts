/** Lets people operate the rehearsal under way, and does what AWS does about an execution that they stop. */
import type { AwsStandIn } from './aws/aws.ts';
import { serveOperators } from './aws/operators.ts';
import type { Functions } from './machines/functions.ts';
import type { StateMachines } from './machines/state-machines.ts';

export class Operation {
  private readonly aws: AwsStandIn;
  private readonly functions: Functions;
  private readonly machines: StateMachines;
  private readonly version: string;
  /** What handlers have started. */
  private readonly begun: Promise<void>[] = [];

  constructor(aws: AwsStandIn, functions: Functions, machines: StateMachines, version: string) {
    this.aws = aws;
    this.functions = functions;
    this.machines = machines;
    this.version = version;
    aws.world.startExecution = (arn, input) => this.begun.push(this.carryOut(arn, input));
  }

  /** @returns what ends it */
  open(): Promise<() => Promise<void>> {
    return serveOperators({
      version: this.version,
      operate: (input) => this.functions.invoke('Operate', input),
      running: () => this.machines.running().filter((arn) => arn.includes(':EncryptionRollout:')),
      startOf: (arn) => this.machines.started.get(arn),
      stop: (arn, cause) => {
        this.aws.executions.set(arn, { status: 'ABORTED', cause });
        // Its children end with it; the invocations under way go on, as on AWS.
        this.machines.abortRunning();
      },
    });
  }

  /** Why a person has stopped the execution; undefined when nobody has. */
  causeOf(executionArn: string): string | undefined {
    return this.aws.executions.get(executionArn)?.cause;
  }

  /** What the event of its end brings about: StopRollout, and the rollback that it begins, to its end. */
  async rollBack(executionArn: string): Promise<void> {
    await this.functions.invoke('StopRollout', {
      'detail-type': 'Step Functions Execution Status Change',
      detail: { executionArn, status: 'ABORTED' },
    });
    await Promise.all(this.begun);
  }

  private async carryOut(arn: string, input: unknown): Promise<void> {
    const [machine = '', name = ''] = arn.split(':').slice(-2);
    const { status } = await this.machines.execute(machine, name, input);
    this.aws.executions.set(arn, { status: status === 'TIMED_OUT' ? 'FAILED' : status });
  }
}
