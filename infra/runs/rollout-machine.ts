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
  type TaskStateBase,
} from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { tablesInWords } from '../../lambdas/core/gates/judgement.ts';
import { maxStretches, type Phase, type PhaseNumber, type Plan } from '../../lambdas/core/plan/plan.ts';
import type { Target } from '../../lambdas/core/plan/settings.ts';
import { askAgain, holdTimeout } from '../gates/hold-machine.ts';
import { childName } from '../machines/execution-names.ts';
import { execute, invoke, type MachineProps, machine, onError, readable, set } from '../machines/tasks.ts';
import { completed, phaseFinished, stopped } from './rollout-endings.ts';

interface RolloutMachineProps extends MachineProps {
  readonly plan: Plan;
  readonly targets: readonly Target[];
  readonly takeBackup: StateMachine;
  readonly encryptBatches: StateMachine;
  readonly soak: StateMachine;
  readonly finalAudit: StateMachine;
  readonly rollback: StateMachine;
  readonly hold: StateMachine;
  /** Phases that begin only when a person has said so. */
  readonly approvals: readonly PhaseNumber[];
}

const run = JsonPath.objectAt('$.run');
const onCall = JsonPath.objectAt('$.onCall');

/** Of a child that says why it ended. */
const outcomeAndReason = {
  outcome: JsonPath.stringAt('$.Output.outcome'),
  reason: JsonPath.stringAt('$.Output.reason'),
};

/** The longest pause that a person may tune; no wait between two looks is longer. */
const longestPauseSeconds = 3_600;

const continuesBeyondLimit = Condition.stringEquals('$.step.outcome', 'CONTINUE');
const continues = Condition.and(
  continuesBeyondLimit,
  Condition.numberLessThan('$.loop.stretch', maxStretches),
);

/**
 * The whole rollout, drawn from the plan. Input: RolloutInput.
 *
 * The data that passes between its states: `input`, `run`, `loop` (counts stretches and holds, for their names) and
 * `step`, the result of the latest step; `step.reason` says why the rollout stops.
 */
export class RolloutMachine extends Construct {
  readonly machine: StateMachine;
  private readonly rollback: IChainable;
  private readonly historyFull: IChainable;
  private readonly endPhase: IChainable;
  private readonly props: RolloutMachineProps;

  constructor(scope: Construct, id: string, props: RolloutMachineProps) {
    super(scope, id);
    this.props = props;
    const { names, functions, plan } = props;
    this.rollback = stopped(this, props, props.rollback);
    this.historyFull = set(this, 'HistoryFull', '$.step', {
      reason: `This execution has started ${maxStretches} stretches of batches, as many as its history should hold. Start the next execution: it goes on where this one stops`,
    }).next(this.rollback);
    this.endPhase = phaseFinished(this, props, this.rollback);
    const refused = new Fail(this, 'RolloutRefused', {
      comment: 'Nothing was changed, so there is nothing to roll back',
      errorPath: '$.refusal.Error',
      causePath: '$.refusal.Cause',
    });

    const begin = new Pass(this, 'Begin', {
      parameters: { input: JsonPath.objectAt('$$.Execution.Input'), loop: { stretch: 1, hold: 0 } },
    });
    const prepareDatabase = invoke(this, 'PrepareDatabase', {
      functions,
      payload: { input: JsonPath.objectAt('$.input'), execution: JsonPath.executionId },
      resultPath: '$.run',
    });
    const preflight = invoke(this, 'Preflight', {
      functions,
      payload: { run, input: JsonPath.objectAt('$.input'), onCall },
      resultPath: '$.step',
    });
    const countSubscribers = this.countSubscribers('CountSubscribers', preflight);
    const resumeAt = new Choice(this, 'ResumeAt');
    const failure = readable(this, 'PrepareDatabase', '$.refusal', refused);
    begin.next(
      new Choice(this, 'IsDryRun')
        .when(
          Condition.and(
            Condition.isPresent('$.input.dryRun'),
            Condition.booleanEquals('$.input.dryRun', true),
          ),
          this.dryRun(failure),
        )
        .otherwise(prepareDatabase),
    );
    const takeBackup = execute(this, 'TakeBackup', {
      machine: props.takeBackup,
      name: childName('backup'),
      input: { run },
      resultSelector: { outcome: JsonPath.stringAt('$.Output.outcome') },
      resultPath: '$.backup',
      // The largest databases take hours.
      timeout: Duration.hours(24),
    });
    onError(prepareDatabase, '$.error', failure).next(takeBackup);
    // Whether there is a backup, preflight judges.
    onError(takeBackup, '$.backup', countSubscribers).next(countSubscribers);
    // Like its refusal: nothing was changed, and the trigger may be on since an earlier, completed rollout.
    onError(preflight, '$.error', failure).next(
      new Choice(this, 'Preflight: Verdict')
        .when(Condition.stringEquals('$.step.verdict', 'GO'), resumeAt)
        .when(
          Condition.stringEquals('$.step.verdict', 'INCONCLUSIVE'),
          this.hold('Preflight: Hold', countSubscribers, (task) => onError(task, '$.error', failure)),
        )
        .otherwise(
          set(this, 'Preflight: Refusal', '$.refusal', {
            Error: 'RolloutRefused',
            Cause: JsonPath.stringAt('$.step.reason'),
          }).next(refused),
        ),
    );

    // Back to front, because each phase must know what follows it.
    let next = completed(this, props, this.rollback);
    resumeAt.when(Condition.numberGreaterThanJsonPath('$.run.resumeAt', '$.run.untilPhase'), this.endPhase);
    for (const phase of [...plan.phases].reverse()) {
      next = this.phase(phase, this.until(phase, next));
      resumeAt.when(Condition.numberEquals('$.run.resumeAt', phase.number), next);
    }

    this.machine = machine(
      this,
      names,
      'EncryptionRollout',
      `Encrypts ${tablesInWords(names.tables)} in place, in gated phases`,
      begin,
    );
  }

  /** After the phase that the input names, the execution ends. */
  private until({ number, title }: Phase, next: IChainable): IChainable {
    if (number === 5) return next;
    return new Choice(this, `${title}: IsLast`)
      .when(Condition.numberEquals('$.run.untilPhase', number), this.endPhase)
      .otherwise(next);
  }

  /** Every check that reads; its output is the execution's. */
  private dryRun(failure: IChainable): IChainable {
    const dryRun = invoke(this, 'DryRun', {
      functions: this.props.functions,
      payload: { input: JsonPath.objectAt('$.input'), onCall },
      resultPath: '$.step',
    });
    onError(dryRun, '$.error', failure).next(new Succeed(this, 'DryRunFinished', { outputPath: '$.step' }));
    return this.countSubscribers('DryRun: CountSubscribers', dryRun);
  }

  /** Whom a page reaches. When it cannot be counted, the checklist says that. */
  private countSubscribers(id: string, next: IChainable): IChainable {
    const count = invoke(
      this,
      'CountSubscribers',
      { functions: this.props.functions, payload: {}, resultPath: '$.onCall' },
      id,
    );
    return onError(count, '$.onCall', next).next(next);
  }

  /** The states of one phase; returns its first. */
  private phase(phase: Phase, next: IChainable): IChainable {
    const work = this.work(phase, next);
    return this.props.approvals.includes(phase.number)
      ? this.gate(phase, 'Approval', 'approval', work)
      : work;
  }

  private work(phase: Phase, next: IChainable): IChainable {
    const afterSoak = phase.number === 5 ? this.audit(phase, next) : next;
    const afterWork = phase.soakMinutes > 0 ? this.soak(phase, afterSoak) : afterSoak;
    const gate = this.gate(phase, 'Gate', 'worked', afterWork);
    if (phase.number === 4) {
      const enableTrigger = invoke(
        this,
        'EnableTrigger',
        { functions: this.props.functions, payload: { run }, resultPath: '$.step' },
        `${phase.title}: EnableTrigger`,
      );
      return onError(enableTrigger, '$.step.reason', this.rollback).next(gate);
    }
    const { plan, encryptBatches, functions } = this.props;
    // A look at the vitals, and then a batch and its pause, or a hold.
    const loopSeconds =
      seconds(functions.named('CheckVitals').timeout) +
      Math.max(
        seconds(functions.named('EncryptBatch').timeout) + longestPauseSeconds,
        seconds(holdTimeout(plan)),
      );
    const batches = execute(this, `${phase.title}: EncryptBatches`, {
      machine: encryptBatches,
      name: childName(`p${phase.number}-{}`, JsonPath.stringAt('$.loop.stretch')),
      input: { run, phase: phase.number },
      resultSelector: outcomeAndReason,
      resultPath: '$.step',
      // Every call as slow as it may be: longer than that, something hangs.
      timeout: Duration.seconds(plan.batchesPerExecution * loopSeconds),
    });
    onError(batches, '$.step.reason', this.rollback).next(
      new Choice(this, `${phase.title}: Progress`)
        .when(Condition.stringEquals('$.step.outcome', 'DONE'), gate)
        .when(continues, this.nextStretch(`${phase.title}: NextStretch`, batches))
        .when(continuesBeyondLimit, this.historyFull)
        .otherwise(this.rollback),
    );
    return batches;
  }

  private soak(phase: Phase, next: IChainable): IChainable {
    const gate = this.gate(phase, 'SoakGate', 'soaked', next);
    const soak = execute(this, `${phase.title}: Soak`, {
      machine: this.props.soak,
      name: childName(`p${phase.number}-soak`),
      input: { run, phase: phase.number },
      resultSelector: outcomeAndReason,
      resultPath: '$.step',
      // The looks at the vitals take time, too; and any of them may have to wait for a person.
      timeout: Duration.seconds(
        (2 * phase.soakMinutes + 60) * 60 +
          Math.ceil(phase.soakMinutes / this.props.plan.soakSliceMinutes) *
            seconds(holdTimeout(this.props.plan)),
      ),
    });
    return onError(soak, '$.step.reason', this.rollback).next(
      new Choice(this, `${phase.title}: SoakOutcome`)
        .when(Condition.stringEquals('$.step.outcome', 'DONE'), gate)
        .otherwise(this.rollback),
    );
  }

  private audit(phase: Phase, next: IChainable): IChainable {
    const { plan, finalAudit, functions } = this.props;
    const gate = this.gate(phase, 'AuditGate', 'audited', next);
    const audit = execute(this, `${phase.title}: FinalAudit`, {
      machine: finalAudit,
      name: childName('audit-{}', JsonPath.stringAt('$.loop.stretch')),
      input: { run },
      resultSelector: { outcome: JsonPath.stringAt('$.Output.outcome') },
      resultPath: '$.step',
      // As with batches, a call or a hold after every look at the vitals.
      timeout: Duration.seconds(
        plan.batchesPerExecution *
          (seconds(functions.named('CheckVitals').timeout) +
            Math.max(seconds(functions.named('AuditRows').timeout), seconds(holdTimeout(plan)))),
      ),
    });
    onError(audit, '$.step.reason', this.rollback).next(
      new Choice(this, `${phase.title}: AuditProgress`)
        .when(continues, this.nextStretch(`${phase.title}: NextAudit`, audit))
        .when(continuesBeyondLimit, this.historyFull)
        .otherwise(gate),
    );
    return audit;
  }

  /** Judges the phase and goes on only with GO. NO_GO stops the rollout; INCONCLUSIVE asks a person, and judges again. */
  private gate(
    phase: Phase,
    name: 'Approval' | 'Gate' | 'SoakGate' | 'AuditGate',
    stage: 'approval' | 'worked' | 'soaked' | 'audited',
    next: IChainable,
  ): IChainable {
    const id = `${phase.title}: ${name}`;
    const gate = invoke(
      this,
      'Gate',
      { functions: this.props.functions, payload: { run, phase: phase.number, stage }, resultPath: '$.step' },
      id,
    );
    onError(gate, '$.step.reason', this.rollback).next(
      new Choice(this, `${id}Verdict`)
        .when(Condition.stringEquals('$.step.verdict', 'GO'), next)
        .when(
          Condition.stringEquals('$.step.verdict', 'INCONCLUSIVE'),
          this.hold(`${id}Hold`, gate, (task) => onError(task, '$.step.reason', this.rollback)),
        )
        .otherwise(this.rollback),
    );
    return gate;
  }

  /** Asks a person about `$.step`, then the state that judged it once more. */
  private hold(id: string, again: IChainable, guard: (task: TaskStateBase) => void): IChainable {
    return askAgain(this, {
      id,
      hold: this.props.hold,
      plan: this.props.plan,
      name: childName('hold-{}', JsonPath.stringAt('$.loop.hold')),
      gate: JsonPath.stringAt('$.step.gate'),
      loop: { stretch: JsonPath.numberAt('$.loop.stretch') },
      again,
      guard,
    });
  }

  private nextStretch(id: string, again: IChainable): IChainable {
    return set(this, id, '$.loop', {
      stretch: JsonPath.mathAdd(JsonPath.numberAt('$.loop.stretch'), 1),
      hold: JsonPath.numberAt('$.loop.hold'),
    }).next(again);
  }
}

function seconds(duration: Duration | undefined): number {
  return duration?.toSeconds() ?? 0;
}
