import type { RolloutConfig } from './config.ts';

export type MachineName = 'EncryptionRollout' | 'EncryptBatches' | 'Soak' | 'FinalAudit' | 'Rollback';

export interface SynthesizedMachine {
  /** The Amazon States Language definition, every reference resolved to an ARN that ends in the name. */
  readonly definition: Readonly<Record<string, unknown>>;
}

export interface SynthesizedFunction {
  /** Directory of the bundle, absolute. */
  readonly directory: string;
  /** `<file without extension>.<export>`, e.g. `index.handler`; the file is `<directory>/index.mjs`. */
  readonly handler: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly timeoutSeconds: number;
}

export interface SynthesizedRollout {
  readonly machines: Readonly<Record<MachineName, SynthesizedMachine>>;
  /** Key: state name. In definitions: `arn:aws:lambda:us-east-1:123456789012:function:<state name>`. */
  readonly functions: Readonly<Record<string, SynthesizedFunction>>;
  /** The CloudFormation template, as it would be deployed. */
  readonly template: Readonly<Record<string, unknown>>;
}

/**
 * Synthesizes the app and reads machines and functions back from the template and its assets: what the rehearsal
 * runs is what would be deployed.
 *
 * In the definitions a task's Resource is `arn:aws:lambda:us-east-1:123456789012:function:<state name>`,
 * `arn:aws:states:::states:startExecution.sync:2` with Parameters.StateMachineArn
 * `arn:aws:states:us-east-1:123456789012:stateMachine:<machine name>`, or `arn:aws:states:::sns:publish`.
 */
export function synthesizeRollout(_config: RolloutConfig, _outdir?: string): SynthesizedRollout {
  throw new Error('not written yet');
}
