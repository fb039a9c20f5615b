/** Watches the executions: shows what happens, measures the phases, and injects the fault at its place. */
import { setTimeout } from 'node:timers/promises';
import type {
  AuditRowsOutput,
  CheckVitalsOutput,
  DisableTriggerOutput,
  EnableTriggerOutput,
  EncryptBatchOutput,
  GateOutput,
  ProvePlaintextOutput,
} from '../lambdas/core/payloads.ts';
import { defaultPlan, type PhaseNumber, phaseOf } from '../lambdas/core/plan/plan.ts';
import { waitOf } from '../lambdas/core/pressure/throttle.ts';
import { duration } from '../lambdas/core/telling/time.ts';
import { count, type Display } from '../terminal/display.ts';
import type { Fault } from './faults.ts';
import { asHere } from './here.ts';
import type { Listener, StateMachines } from './machines/state-machines.ts';

/** What the subscribers of a topic receive. */
export interface SentMessage {
  /** Its name. */
  readonly topic: string;
  readonly subject: string;
  readonly message: string;
}

/** An invocation that worked on rows. */
interface Call {
  readonly seconds: number;
  readonly rows: number;
}

interface Injected {
  readonly about: Fault;
  inject(): Promise<void>;
  repair(): unknown;
}

interface Stretch {
  virtual: number;
  wall: number;
}

/** Phases of the states that are not told theirs. */
const phaseOfState: Readonly<Record<string, PhaseNumber>> = {
  EnableTrigger: 4,
  AuditRows: 5,
  CompleteRollout: 5,
};

/** Between two looks while a person has paused it, of wall time: nothing else slows the machine down. */
const pausedLookMs = 250;

/** States of the rollback, in which no phase goes on. */
const rollbackStates = new Set(['CancelBatches', 'DisableTrigger', 'ProvePlaintext', 'GatherEvidence']);

/** Whether it has come to this place; a resumed rollout may begin beyond it. */
function isAt({ phase: there, state }: Fault['before'], phase: PhaseNumber, name: string): boolean {
  return phase > there || (phase === there && (state === undefined || name === state));
}

export class Observer implements Listener {
  readonly phaseSeconds = new Map<PhaseNumber, Stretch>();
  /** What the rollback did; null when there was none. */
  rollback: { triggerDisabledMs: number; plaintextRows: number } | null = null;
  /** Why the rollout stopped: the judgement's own sentence where there is one. */
  reason = '';
  faultInjected = false;
  /** As AWS would have sent them, in their order. */
  readonly messages: SentMessage[] = [];
  /** Set before the first execution. */
  machines: StateMachines | undefined;
  private readonly display: Display;
  private readonly fault: Injected | undefined;
  /** By table. */
  private readonly rowsWithPii: ReadonlyMap<string, number>;
  private readonly encrypted = new Map<string, number>();
  private readonly started = performance.now();
  private phase: PhaseNumber | undefined;
  private entered: Stretch = { virtual: 0, wall: 0 };
  private pace: Call[] = [];
  /** When the function at work was called. */
  private called = 0;
  private verified = 0;
  private looks = 0;
  /** Why it waits, as it was last said: told once. */
  private waiting = '';

  /** @param rowsWithPii by table */
  constructor(display: Display, rowsWithPii: ReadonlyMap<string, number>, fault?: Injected) {
    this.display = display;
    this.rowsWithPii = rowsWithPii;
    this.fault = fault;
  }

  /** Seconds since the start: on AWS, and here. */
  get seconds(): Stretch {
    const wall = (performance.now() - this.started) / 1000;
    return { wall, virtual: wall + (this.machines?.waitedSeconds ?? 0) };
  }

  async beforeFunction(name: string, input: unknown): Promise<void> {
    const phase = phaseOfState[name] ?? (input as { phase?: PhaseNumber }).phase;
    if (phase !== undefined && phase !== this.phase) this.enter(phase);
    if (rollbackStates.has(name) && this.phase !== undefined) this.leave();
    if (this.fault && phase !== undefined) {
      const { before, until, story } = this.fault.about;
      if (!this.faultInjected && isAt(before, phase, name)) {
        this.faultInjected = true;
        this.display.heading(`Fault: ${story}.`);
        await this.fault.inject();
      } else if (until !== undefined && isAt(until, phase, name)) await this.fault.repair();
    }
    if (name === 'CheckVitals' && waitOf(this.waiting) === 'person') await setTimeout(pausedLookMs);
    this.called = performance.now();
  }

  afterFunction(name: string, input: unknown, result: unknown): void {
    switch (name) {
      case 'Preflight':
      case 'Gate': {
        const judgement = result as GateOutput;
        this.display.endProgress();
        if (judgement.verdict === 'MORE_WORK') {
          this.display.line(`  ${judgement.reason}`);
          break;
        }
        this.display.judgement(judgement, this.seconds.virtual);
        // What could not be measured is judged again, after a person was asked.
        if (judgement.verdict === 'NO_GO') this.reason ||= judgement.reason;
        break;
      }
      case 'EncryptBatch':
        this.batch((input as { target: string }).target, result as EncryptBatchOutput);
        break;
      case 'CheckVitals':
        this.vitals(input as { during: string }, result as CheckVitalsOutput);
        break;
      case 'EnableTrigger':
        this.display.line(
          `  The trigger is on, of ${(result as EnableTriggerOutput).enabled.join(', ')}; a canary row was inserted into each table, checked and rolled back.`,
        );
        break;
      case 'AuditRows': {
        const { verified, mismatched } = result as AuditRowsOutput;
        this.verified += verified + mismatched;
        this.progress('verifying', verified + mismatched, this.verified);
        break;
      }
      case 'DisableTrigger':
        this.rollback = {
          triggerDisabledMs: (result as DisableTriggerOutput).tables.reduce(
            (sum, { milliseconds }) => sum + milliseconds,
            0,
          ),
          plaintextRows: 0,
        };
        break;
      case 'ProvePlaintext':
        if (this.rollback) this.rollback.plaintextRows = (result as ProvePlaintextOutput).plaintextRows;
        break;
      case 'GatherEvidence':
      case 'CompleteRollout':
        this.leave();
        break;
    }
  }

  functionFailed(name: string, _input: unknown, error: Error): void {
    this.display.line(`  ${name} failed: ${error.name}`);
  }

  notified(subject: string, message: string, topic: string): void {
    this.messages.push({ topic, subject, message });
    this.display.endProgress();
    this.display.notification(subject, asHere(message));
  }

  waited(): void {}

  private enter(phase: PhaseNumber): void {
    this.leave();
    this.phase = phase;
    this.entered = this.seconds;
    this.pace = [];
    this.looks = 0;
    this.display.heading(phaseOf(defaultPlan, phase).title);
  }

  private leave(): void {
    this.display.endProgress();
    if (this.phase === undefined) return;
    const { virtual, wall } = this.seconds;
    this.phaseSeconds.set(this.phase, {
      virtual: virtual - this.entered.virtual,
      wall: wall - this.entered.wall,
    });
    this.phase = undefined;
  }

  private batch(table: string, { encrypted, failed, percentage, outcome, reason }: EncryptBatchOutput): void {
    this.encrypted.set(table, ((this.rowsWithPii.get(table) ?? 0) * percentage) / 100);
    this.progress('encrypting', encrypted, total(this.encrypted));
    if (failed > 0) this.display.line(`  ${count(failed)} rows of ${table} could not be encrypted`);
    if (outcome === 'BREACH') this.breach(reason);
  }

  private vitals({ during }: { during: string }, { outcome, reason, criteria }: CheckVitalsOutput): void {
    if (outcome === 'BREACH') {
      this.breach(reason);
      this.display.criteria(criteria);
      return;
    }
    if (outcome === 'HOLD' || outcome === 'WAIT') {
      if (reason !== this.waiting) {
        this.display.endProgress();
        this.display.line(`  ${outcome === 'HOLD' ? 'A person is asked' : 'Batches wait'}. ${reason}`);
      }
      this.waiting = reason;
      return;
    }
    this.waiting = '';
    if (during !== 'soak' || this.phase === undefined) return;
    this.looks += 1;
    const { soakMinutes } = phaseOf(defaultPlan, this.phase);
    if (outcome === 'DONE') {
      this.display.endProgress();
      this.display.line(
        `  Watched for ${duration(soakMinutes, 'min')}: ${this.looks} looks at the vitals, all well.`,
      );
    } else {
      const watched = Math.min(100, ((this.looks - 1) * defaultPlan.soakSliceMinutes * 100) / soakMinutes);
      this.display.progress(
        'watching',
        watched,
        `vitals looked at ${this.looks === 1 ? 'once' : `${this.looks} times`}, all well`,
        this.seconds.virtual,
      );
    }
  }

  private breach(reason: string): void {
    this.reason ||= reason;
    this.display.endProgress();
    this.display.problem(`  Breach. ${reason}`);
  }

  private progress(what: string, rows: number, done: number): void {
    const all = total(this.rowsWithPii);
    const left = all - done;
    this.pace.push({ seconds: (performance.now() - this.called) / 1000, rows });
    // Of the latest calls, since the first one also pays for what is loaded once.
    if (this.pace.length > 10) this.pace.shift();
    const sum = (of: (call: Call) => number) => this.pace.reduce((all, call) => all + of(call), 0);
    const rate = sum((call) => call.rows) / sum((call) => call.seconds);
    const percent = all === 0 ? 100 : Math.min(100, (done * 100) / all);
    const secondsLeft = left > 0 && rate > 0 ? left / rate : 0;
    const details = `${count(rate)} rows/s · ${duration(Math.ceil(secondsLeft))} left`;
    this.display.progress(what, percent, details, this.seconds.virtual);
  }
}

function total(rows: ReadonlyMap<string, number>): number {
  return [...rows.values()].reduce((sum, each) => sum + each, 0);
}
