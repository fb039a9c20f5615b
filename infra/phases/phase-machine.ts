import { Duration } from 'aws-cdk-lib';
import {
  Choice,
  Condition,
  Fail,
  type IChainable,
  JsonPath,
  Map as MapState,
  Pass,
  StateMachine,
  Succeed,
} from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import type { Phase, PhaseNumber, Plan } from '../../lambdas/core/plan/plan.ts';
import { askAgain, holdTimeout, noQuestions } from '../gates/hold-machine.ts';
import { childName, grandchildName } from '../machines/execution-names.ts';
import {
  execute,
  explainFailure,
  invoke,
  longest,
  type MachineProps,
  machine,
  onError,
  set,
} from '../machines/tasks.ts';

interface PhaseMachineProps extends MachineProps {
  readonly plan: Plan;
  readonly encryptBatches: StateMachine;
  readonly soak: StateMachine;
  readonly finalAudit: StateMachine;
  readonly hold: StateMachine;
}

/** What a phase does, one after the other, each followed by its gate. */
interface Steps {
  /** A person says that it may begin. */
  readonly approval: boolean;
  readonly batches: boolean;
  readonly trigger: boolean;
  readonly soak: boolean;
  readonly audit: boolean;
}

/**
 * The input of Phase for a phase of the plan, as its parent gives it.
 * @param approvals phases that begin only when a person has said so
 */
export function phaseInput({ number, soakMinutes }: Phase, approvals: readonly PhaseNumber[]) {
  const does: Steps = {
    approval: approvals.includes(number),
    batches: number !== 4,
    trigger: number === 4,
    soak: soakMinutes > 0,
    audit: number === 5,
  };
  return { run: JsonPath.objectAt('$.run'), phase: number, part: 1, does };
}

/** The next part of a phase does what is named on top: the rest is done, or was never asked for. */
const nothing: Steps = { approval: false, batches: false, trigger: false, soak: false, audit: false };

/** Work that takes one execution or several, side by side and one after the other. */
interface Rounds {
  readonly of: 'batches' | 'audit';
  /** Names of those that list it, go through the list, do what stands in it, see what is left, and leave it to the next part. */
  readonly states: readonly [list: string, map: string, item: string, progress: string, more: string];
  readonly machine: StateMachine;
  /** Of the machine, besides run and slice. */
  readonly input: Record<string, unknown>;
  /** Of the longest call in it, with its pause. */
  readonly secondsOfCall: number;
  /** What the next part is to do. */
  readonly rest: Record<keyof Steps, unknown>;
  readonly next: IChainable;
  readonly nextPart: IChainable;
}

/** The longest pause that a person may tune; no wait between two looks is longer. */
const longestPauseSeconds = 3_600;

const run = JsonPath.objectAt('$.run');
const phase = JsonPath.numberAt('$.phase');

/**
 * One phase of the plan, whichever. It fails as PhaseStopped, with the reason as its cause, when the rollout must stop. A
 * phase that the run has passed, or that it is not to reach, ends at once. One whose work or audit is too long for a history
 * executes this machine once more, for the rest of it, and ends as that ends.
 * Input `{run, phase, part, does}`, as phaseInput says; output is the last judgement.
 *
 * The data that passes between its states, besides the input: `batches` and `audit` (the round and its items), `holds` (which
 * counts, for names), `step`, the result of the latest step, whose `reason` says why the phase stops, and `failure`.
 */
export class PhaseMachine extends Construct {
  readonly machine: StateMachine;
  private readonly props: PhaseMachineProps;
  private readonly stopped: IChainable;
  private readonly failed: IChainable;

  constructor(scope: Construct, id: string, props: PhaseMachineProps) {
    super(scope, id);
    this.props = props;
    this.stopped = new Fail(this, 'PhaseStopped', { error: 'PhaseStopped', causePath: '$.step.reason' });
    this.failed = explainFailure(this, props.functions, {
      error: '$.failure',
      resultPath: '$.step',
      next: this.stopped,
      otherwise: new Fail(this, 'PhaseFailed', {
        comment: 'The error as it is, which could not be explained',
        errorPath: '$.failure.Error',
        causePath: '$.failure.Cause',
      }),
    });

    // Back to front, because each state must know what follows it.
    const passed = new Succeed(this, 'PhasePassed', { outputPath: '$.step' });
    const nextPart = this.nextPart(passed);
    const audited = this.gate('AuditGate', 'audited', passed);
    const needsAudit = this.needs('audit', this.audit(audited, nextPart), passed);
    const soaked = this.gate('SoakGate', 'soaked', needsAudit);
    const needsSoak = this.needs('soak', this.soak(soaked), needsAudit);
    const verdict = new Choice(this, 'GateVerdict');
    const worked = this.gate('Gate', 'worked', needsSoak, verdict);
    const work = this.work(worked, nextPart);
    // Edits took what batches had done: they go on, in phase 4 with the trigger on.
    verdict.when(Condition.stringEquals('$.step.verdict', 'MORE_WORK'), work);
    const workKind = new Choice(this, 'WorkKind')
      .when(does('batches'), work)
      .when(does('trigger'), this.enableTrigger(worked))
      .otherwise(needsSoak);
    const needsApproval = this.needs('approval', this.gate('Approval', 'approval', workKind), workKind);
    const isDue = new Choice(this, 'IsDue')
      .when(Condition.numberLessThanJsonPath('$.phase', '$.run.resumeAt'), new Succeed(this, 'PassedBefore'))
      .when(
        Condition.numberGreaterThanJsonPath('$.phase', '$.run.untilPhase'),
        new Succeed(this, 'NotAskedFor'),
      )
      .otherwise(needsApproval);
    const begin = new Pass(this, 'Begin', {
      parameters: {
        run,
        phase,
        part: JsonPath.numberAt('$.part'),
        does: JsonPath.objectAt('$.does'),
        batches: { round: 0 },
        audit: { round: 0 },
        holds: noQuestions,
      },
    });

    this.machine = machine(
      this,
      props.names,
      'Phase',
      'One phase of the rollout: approval, work, gate, soak, audit',
      begin.next(isDue),
    );
  }

  private needs(step: keyof Steps, yes: IChainable, no: IChainable): Choice {
    return new Choice(this, `Needs${step[0]?.toUpperCase()}${step.slice(1)}`)
      .when(does(step), yes)
      .otherwise(no);
  }

  private work(next: IChainable, nextPart: IChainable): IChainable {
    return this.rounds({
      of: 'batches',
      states: ['ListWork', 'Work', 'EncryptBatches', 'Progress', 'MoreWork'],
      machine: this.props.encryptBatches,
      input: { phase, target: JsonPath.stringAt('$.target') },
      secondsOfCall: seconds(this.props.functions.named('EncryptBatch').timeout) + longestPauseSeconds,
      rest: {
        ...nothing,
        batches: true,
        soak: JsonPath.objectAt('$.does.soak'),
        audit: JsonPath.objectAt('$.does.audit'),
      },
      next,
      nextPart,
    });
  }

  private enableTrigger(next: IChainable): IChainable {
    const task = invoke(this, 'EnableTrigger', {
      functions: this.props.functions,
      payload: { run },
      resultPath: '$.step',
    });
    return onError(task, '$.failure', this.failed).next(next);
  }

  private soak(next: IChainable): IChainable {
    const { plan, soak } = this.props;
    const minutes = Math.max(...plan.phases.map(({ soakMinutes }) => soakMinutes));
    const task = execute(this, 'Soak', {
      machine: soak,
      name: grandchildName('soak'),
      input: { run, phase },
      // The looks at the vitals take time, too; and any of them may have to wait for a person.
      timeout: Duration.seconds(
        (2 * minutes + 60) * 60 + Math.ceil(minutes / plan.soakSliceMinutes) * seconds(holdTimeout(plan)),
      ),
    });
    return onError(task, '$.failure', this.failed).next(next);
  }

  private audit(next: IChainable, nextPart: IChainable): IChainable {
    return this.rounds({
      of: 'audit',
      states: ['ListAudit', 'Audit', 'FinalAudit', 'AuditProgress', 'MoreAudit'],
      machine: this.props.finalAudit,
      input: {},
      secondsOfCall: seconds(this.props.functions.named('AuditRows').timeout),
      rest: { ...nothing, audit: true },
      next,
      nextPart,
    });
  }

  /** Rounds of executions, one for each slice that has something left, until ListWork finds none. */
  private rounds({ of, states, machine, input, secondsOfCall, rest, next, nextPart }: Rounds): IChainable {
    const { functions, plan } = this.props;
    const [listId, mapId, itemId, progressId, moreId] = states;
    const list = invoke(
      this,
      'ListWork',
      {
        functions,
        payload: {
          run,
          phase,
          work: of,
          execution: JsonPath.executionName,
          round: JsonPath.numberAt(`$.${of}.round`),
        },
        resultPath: `$.${of}`,
      },
      listId,
    );
    // After a look at the vitals a call, or a hold.
    const loopSeconds =
      seconds(functions.named('CheckVitals').timeout) + Math.max(secondsOfCall, seconds(holdTimeout(plan)));
    const item = execute(this, itemId, {
      machine,
      name: JsonPath.stringAt('$.name'),
      input: { run, ...input, slices: JsonPath.numberAt('$.slices'), slice: JsonPath.numberAt('$.slice') },
      // Every call as slow as it may be: longer than that, something hangs.
      timeout: Duration.seconds(plan.batchesPerExecution * loopSeconds),
    });
    const round = new MapState(this, mapId, {
      itemsPath: `$.${of}.items`,
      maxConcurrencyPath: `$.${of}.writers`,
      resultPath: JsonPath.DISCARD,
    }).itemProcessor(item);
    onError(list, '$.failure', this.failed).next(
      new Choice(this, progressId)
        .when(Condition.stringEquals(`$.${of}.outcome`, 'DONE'), next)
        .when(Condition.stringEquals(`$.${of}.outcome`, 'WORK'), round)
        .otherwise(set(this, moreId, '$.does', rest).next(nextPart)),
    );
    onError(round, '$.failure', this.failed).next(list);
    return list;
  }

  /** Judges the phase and goes on only with GO. NO_GO stops the rollout; INCONCLUSIVE asks a person, and judges again. */
  private gate(
    id: 'Approval' | 'Gate' | 'SoakGate' | 'AuditGate',
    stage: 'approval' | 'worked' | 'soaked' | 'audited',
    next: IChainable,
    verdict = new Choice(this, `${id}Verdict`),
  ): IChainable {
    const { functions, hold, plan } = this.props;
    const gate = invoke(
      this,
      'Gate',
      { functions, payload: { run, phase, stage }, resultPath: '$.step' },
      id,
    );
    return onError(gate, '$.failure', this.failed).next(
      verdict
        .when(Condition.stringEquals('$.step.verdict', 'GO'), next)
        .when(
          Condition.stringEquals('$.step.verdict', 'INCONCLUSIVE'),
          askAgain(this, {
            id: `${id}Hold`,
            hold,
            plan,
            gate: JsonPath.stringAt('$.step.gate'),
            again: gate,
            guard: (task) => onError(task, '$.failure', this.failed),
          }),
        )
        .otherwise(this.stopped),
    );
  }

  /** The rest of the phase, in an execution with a history of its own. */
  private nextPart(next: IChainable): IChainable {
    const count = set(this, 'CountPart', '$.next', {
      part: JsonPath.mathAdd(JsonPath.numberAt('$.part'), 1),
    });
    const part = JsonPath.numberAt('$.next.part');
    const task = execute(this, 'NextPart', {
      // By name, because it is drawn before it is there.
      machine: StateMachine.fromStateMachineName(this, 'Itself', this.props.names.of('Phase')),
      name: childName('p{}-{}', JsonPath.stringAt('$.phase'), JsonPath.stringAt('$.next.part')),
      input: { run, phase, part, does: JsonPath.objectAt('$.does') },
      resultSelector: {
        verdict: JsonPath.stringAt('$.Output.verdict'),
        reason: JsonPath.stringAt('$.Output.reason'),
      },
      resultPath: '$.step',
      timeout: longest,
    });
    onError(task, '$.failure', this.failed).next(next);
    return count.next(task);
  }
}

const does = (step: keyof Steps) => Condition.booleanEquals(`$.does.${step}`, true);

function seconds(duration: Duration | undefined): number {
  return duration?.toSeconds() ?? 0;
}
