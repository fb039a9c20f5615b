import { Duration } from 'aws-cdk-lib';
import {
  Choice,
  Condition,
  Fail,
  type IChainable,
  JsonPath,
  Pass,
  type StateMachine,
  Succeed,
} from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { tablesInWords } from '../../lambdas/core/gates/judgement.ts';
import type { PhaseNumber, Plan } from '../../lambdas/core/plan/plan.ts';
import type { Target } from '../../lambdas/core/plan/settings.ts';
import { childName } from '../machines/execution-names.ts';
import {
  execute,
  explainFailure,
  invoke,
  longest,
  type MachineProps,
  machine,
  onError,
} from '../machines/tasks.ts';
import { phaseInput } from '../phases/phase-machine.ts';
import { completed, phaseFinished, stopped } from './rollout-endings.ts';

interface RolloutMachineProps extends MachineProps {
  readonly plan: Plan;
  readonly targets: readonly Target[];
  readonly takeBackup: StateMachine;
  readonly preflight: StateMachine;
  readonly phase: StateMachine;
  readonly rollback: StateMachine;
  /** Phases that begin only when a person has said so. */
  readonly approvals: readonly PhaseNumber[];
}

const run = JsonPath.objectAt('$.run');
const input = JsonPath.objectAt('$.input');

/**
 * The whole rollout, one box for each step of the plan. Input: RolloutInput.
 *
 * The data that passes between its states: `input`, `run`, `refusal` (what RolloutRefused would say) and `step`, the result
 * of the latest step; `step.reason` says why the rollout stops.
 */
export class RolloutMachine extends Construct {
  readonly machine: StateMachine;

  constructor(scope: Construct, id: string, props: RolloutMachineProps) {
    super(scope, id);
    const { names, functions, plan } = props;
    const rollback = stopped(this, props, props.rollback);
    const refused = new Fail(this, 'RolloutRefused', {
      comment: 'Nothing was changed, so there is nothing to roll back',
      errorPath: '$.refusal.Error',
      causePath: '$.refusal.Cause',
    });
    const failure = explainFailure(this, functions, {
      error: '$.refusal',
      resultPath: '$.refusal',
      next: refused,
      otherwise: refused,
    });

    const begin = new Pass(this, 'Begin', {
      parameters: { input: JsonPath.objectAt('$$.Execution.Input') },
    });
    const prepareDatabase = invoke(this, 'PrepareDatabase', {
      functions,
      payload: { input, execution: JsonPath.executionId },
      resultPath: '$.run',
    });
    const takeBackup = execute(this, 'TakeBackup', {
      machine: props.takeBackup,
      name: childName('backup'),
      input: { run },
      // The largest databases take hours.
      timeout: Duration.hours(24),
    });
    const preflight = execute(this, 'Preflight', {
      machine: props.preflight,
      name: childName('preflight'),
      input: { run, input, dryRun: false },
      resultSelector: {
        verdict: JsonPath.stringAt('$.Output.verdict'),
        Error: 'RolloutRefused',
        Cause: JsonPath.stringAt('$.Output.reason'),
      },
      resultPath: '$.refusal',
      timeout: longest,
    });
    const isComplete = new Choice(this, 'IsComplete')
      .when(Condition.numberLessThan('$.run.untilPhase', 5), phaseFinished(this, props, rollback))
      .otherwise(completed(this, props, rollback));

    begin.next(
      new Choice(this, 'IsDryRun')
        .when(
          Condition.and(
            Condition.isPresent('$.input.dryRun'),
            Condition.booleanEquals('$.input.dryRun', true),
          ),
          this.dryRun(props, failure),
        )
        .otherwise(prepareDatabase),
    );
    onError(prepareDatabase, '$.refusal', failure).next(takeBackup);
    // Whether there is a backup, preflight judges.
    onError(takeBackup, '$.backup', preflight).next(preflight);
    // Like its refusal: nothing was changed, and the trigger may be on since an earlier, completed rollout.
    onError(preflight, '$.refusal', failure).next(
      new Choice(this, 'PreflightVerdict')
        .when(Condition.stringEquals('$.refusal.verdict', 'GO'), this.phases(props, rollback, isComplete))
        .otherwise(refused),
    );

    this.machine = machine(
      this,
      names,
      'EncryptionRollout',
      `Encrypts ${tablesInWords(names.tables)} in place, in ${plan.phases.length} gated phases`,
      begin,
    );
  }

  /** The phases of the plan, a box each; returns the first. */
  private phases({ plan, phase, approvals }: RolloutMachineProps, rollback: IChainable, next: IChainable) {
    return plan.phases.reduceRight<IChainable>((following, each) => {
      const task = execute(this, each.title, {
        machine: phase,
        name: childName(`p${each.number}`),
        input: phaseInput(each, approvals),
        timeout: longest,
      });
      return onError(task, '$.step.reason', rollback).next(following);
    }, next);
  }

  /** Every check that reads; its output is the execution's. */
  private dryRun({ preflight }: RolloutMachineProps, failure: IChainable): IChainable {
    const dryRun = execute(this, 'DryRun', {
      machine: preflight,
      // There is no run that it could be named after, and the execution's own name may be as long as a name can be.
      name: JsonPath.format('dry-run-{}', JsonPath.hash(JsonPath.executionId, 'SHA-1')),
      input: { input, dryRun: true },
      resultSelector: { judgement: JsonPath.objectAt('$.Output') },
      resultPath: '$.step',
      // Calls of a quarter of an hour, with every retry.
      timeout: Duration.hours(3),
    });
    return onError(dryRun, '$.refusal', failure).next(
      new Succeed(this, 'DryRunFinished', { outputPath: '$.step.judgement' }),
    );
  }
}
