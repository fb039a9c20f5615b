/** A model of a database and of the handlers at work on it, on a clock of its own: what `simulate` runs the machines against. */
import { randomUUID } from 'node:crypto';
import { aimRows } from '../lambdas/core/plan/coverage.ts';
import { type Phase, type Plan, phaseOf, roundsPerExecution } from '../lambdas/core/plan/plan.ts';
import {
  firstPace,
  nextPace,
  type Pace,
  type PaceState,
  pauseMilliseconds,
  utilizationOf,
} from '../lambdas/core/pressure/pace.ts';

export interface Server {
  readonly vcpus: number;
  /** Of a batch's work, alone on the server. */
  readonly millisecondsPerRow: number;
  readonly auditMillisecondsPerRow: number;
  /** Sessions of others at work, by the seconds since the start. */
  readonly others: (seconds: number) => number;
}

/** The clock and the controller, after a batch. */
export interface Moment {
  readonly phase: number;
  readonly seconds: number;
  readonly share: number;
  readonly utilization: number;
  readonly others: number;
  readonly rowsPerSecond: number;
}

interface Call {
  readonly phase: number;
  readonly stage?: string;
  readonly during?: string;
  readonly work: 'batches' | 'audit';
  readonly execution: string;
  readonly round: number;
  readonly slice: number;
  readonly batch: number;
}

const table = 'public.people';

/** One table with this many rows to encrypt. */
export class Model {
  seconds = 0;
  /** By what they were spent on. */
  readonly spent = { batches: 0, audit: 0 };
  calls = 0;
  readonly moments: Moment[] = [];
  private readonly run = { id: randomUUID(), attempt: 1 };
  private readonly done = new Set<number>();
  private readonly plan: Plan;
  private readonly pace: Pace | null;
  private readonly server: Server;
  private readonly rows: number;
  private encrypted = 0;
  private audited = 0;
  private state: PaceState | undefined;

  constructor(plan: Plan, pace: Pace | null, server: Server, rows: number) {
    this.plan = { ...plan, pace: { ...plan.pace, vcpus: server.vcpus } };
    this.pace = pace;
    this.server = server;
    this.rows = rows;
  }

  /** What the function of this name answers. */
  invoke(name: string, call: Call): unknown {
    this.calls += 1;
    switch (name) {
      case 'PrepareDatabase':
        return { ...this.run, resumeAt: 1, untilPhase: 5 };
      case 'TakeBackup':
        return { outcome: 'READY' };
      case 'CountSubscribers':
        return { subscribers: 1 };
      case 'Preflight':
      case 'Gate':
        return { verdict: 'GO', reason: '', gate: name };
      case 'CheckVitals':
        return this.checkVitals(call);
      case 'ListWork':
        return this.listWork(call);
      case 'EncryptBatch':
        return this.encryptBatch(phaseOf(this.plan, call.phase as Phase['number']), call);
      case 'AuditRows':
        return this.auditRows(call);
      case 'EnableTrigger':
        return { enabled: true, reason: '' };
      case 'CompleteRollout':
      case 'EndPhase':
        return { summary: 'complete' };
      case 'ScheduleChecks':
        return { schedules: [] };
      default:
        throw new Error(`the model has no ${name}: something has stopped the rollout`);
    }
  }

  private checkVitals({ during, slice, phase }: Call): unknown {
    this.seconds += 1;
    const { soakMinutes } = phaseOf(this.plan, phase as Phase['number']);
    if (during === 'batch' && slice >= this.plan.batchesPerExecution)
      return { outcome: 'CONTINUE', slice, reason: '' };
    const soaked = during === 'soak' && slice * this.plan.soakSliceMinutes >= soakMinutes;
    return { outcome: soaked ? 'DONE' : 'OK', slice: slice + 1, reason: '' };
  }

  private listWork({ phase, work, execution, round }: Call): unknown {
    const more = round < roundsPerExecution(1) ? 'WORK' : 'CONTINUE';
    const item = {
      run: this.run,
      phase,
      target: table,
      slices: 1,
      slice: 0,
      name: `${execution}-${work}-${round + 1}-1`,
    };
    const isDone = work === 'audit' ? this.audited >= this.rows : this.done.has(phase);
    return { outcome: isDone ? 'DONE' : more, items: isDone ? [] : [item], round: round + 1, writers: 1 };
  }

  private encryptBatch(phase: Phase, { batch }: Call): unknown {
    const aim = aimRows(phase, this.rows);
    const ends = this.seconds + (this.pace === null ? 0 : this.plan.pace.callSeconds);
    do this.oneBatch(phase, aim);
    while (this.encrypted < aim && this.seconds < ends);
    if (this.encrypted >= aim) this.done.add(phase.number);
    const more = batch + 1 < this.plan.batchesPerExecution ? 'MORE' : 'CONTINUE';
    return {
      outcome: this.encrypted >= aim ? 'DONE' : more,
      batch: batch + 1,
      pauseSeconds: this.pace === null ? phase.pauseSeconds : 0,
      reason: '',
    };
  }

  /** Whoever is more than the server has vCPUs waits for his turn. */
  private oneBatch(phase: Phase, aim: number): void {
    const { vcpus, millisecondsPerRow } = this.server;
    this.state ??= firstPace(phase.batchRows, this.pace ?? { share: 1, batchMilliseconds: 500, writers: 1 });
    const state = this.state;
    const rows = Math.min(aim - this.encrypted, this.pace === null ? phase.batchRows : state.rows);
    const others = this.server.others(this.seconds);
    const crowd = Math.max(1, (others + 1) / vcpus);
    const milliseconds = 5 + rows * millisecondsPerRow * crowd;
    this.encrypted += rows;
    this.spend('batches', milliseconds);
    if (this.pace === null) return;
    this.state = nextPace(state, this.plan, this.pace, {
      rows,
      milliseconds,
      commitMilliseconds: 2 * crowd,
      waitingSessions: 0,
      activeSessions: others,
      activeWriters: 0,
      vitals: utilizationOf(this.plan, {
        cpuPercents: [Math.min(100, (100 * (others + state.share)) / vcpus)],
        customerAlarms: null,
        longestLockWaitMilliseconds: 0,
        connections: { used: 0, limit: 1 },
        freeStorageBytes: undefined,
        replicaLagSeconds: undefined,
        slotLagBytes: 0,
        oldestTransactionMinutes: 0,
        maintenance: false,
        deadRowsPercent: 0,
      }),
    });
    const pause = pauseMilliseconds(milliseconds, this.state.share);
    this.spend('batches', pause);
    const { share, utilization } = this.state;
    this.moments.push({
      phase: phase.number,
      seconds: this.seconds,
      share,
      utilization,
      others,
      rowsPerSecond: (1_000 * rows) / (milliseconds + pause),
    });
  }

  private auditRows({ batch }: Call): unknown {
    const fits = (1_000 * this.plan.pace.callSeconds) / this.server.auditMillisecondsPerRow;
    const rows = Math.min(Math.ceil(fits), this.rows - this.audited);
    this.audited += rows;
    this.spend('audit', rows * this.server.auditMillisecondsPerRow);
    const more = batch + 1 < this.plan.batchesPerExecution ? 'MORE' : 'CONTINUE';
    return { outcome: this.audited >= this.rows ? 'DONE' : more, batch: batch + 1, reason: '' };
  }

  private spend(on: keyof Model['spent'], milliseconds: number): void {
    this.seconds += milliseconds / 1_000;
    this.spent[on] += milliseconds / 1_000;
  }
}
