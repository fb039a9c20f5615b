/** What the stand-in for AWS knows, and how it refuses. */

export interface Snapshot {
  readonly id: string;
  status: string;
  takenAt?: Date;
  readonly ofAwsBackup?: true;
  /** When the snapshot was taken that it is a copy of. */
  readonly copyOf?: Date;
}

/** What the stand-in knows. Fields may be changed while it runs: that is how faults are injected. */
export interface World {
  /** Secret values by ARN. */
  readonly secrets: Map<string, unknown>;
  /** Of those that are being rotated: the versions that are to become current, by ARN. */
  readonly pendingSecrets?: ReadonlyMap<string, unknown>;
  /** Percent, answered as every one-minute reading. */
  cpuPercent: number;
  /** For so long RDS has published nothing. */
  silentMinutes?: number;
  /** Of the instance; 100 GiB when not given, null = not published. */
  freeStorageBytes?: number | null;
  /** Of every replica, in the metric's own unit; none when not given, null = not published. */
  replicaLag?: number | null;
  /** Alarm names and their states. */
  readonly alarms: Map<string, 'OK' | 'ALARM' | 'INSUFFICIENT_DATA'>;
  /** Those whose actions somebody has disabled. */
  mutedAlarms?: ReadonlySet<string>;
  readonly dashboards: ReadonlySet<string>;
  /** When the latest snapshot of the database was taken. */
  snapshotAt: Date;
  /** Those that a handler has begun, or a test. */
  snapshots?: Snapshot[];
  /** Of every topic, in SNS's words; one confirmed e-mail when not given. */
  subscriptions?: readonly Readonly<Record<'SubscriptionArn' | 'Protocol' | 'Endpoint', string>>[];
  /** True while the process that runs this execution lives. */
  isRunning(executionArn: string): Promise<boolean>;
  /** Answers the task that waits with this token; false when none does. Nobody waits when it is not given. */
  succeedTask?: ((token: string, output: unknown) => boolean) | undefined;
  /** Carries out what a handler has asked to start; it is noted alone when this is not given. */
  startExecution?: ((executionArn: string, input: unknown) => void) | undefined;
  /** Before every answer: may be slow, or throw an error of the name that AWS gives it. */
  disturb?: ((operation: string) => Promise<void> | void) | undefined;
}

/** An answer that the SDK turns into an error of this name. */
export class AwsError extends Error {
  constructor(name: string, message: string) {
    super(message);
    this.name = name;
  }
}
