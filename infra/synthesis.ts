import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { App } from 'aws-cdk-lib';
import { readJson } from '../config/read.ts';
import { Settings, settingsFile } from '../lambdas/core/plan/settings.ts';
import type { RolloutConfig } from './config.ts';
import { namesOf } from './names.ts';
import { EncryptionRolloutStack } from './stack.ts';

export type MachineName =
  | 'EncryptionRollout'
  | 'TakeBackup'
  | 'Preflight'
  | 'Phase'
  | 'EncryptBatches'
  | 'Soak'
  | 'FinalAudit'
  | 'Hold'
  | 'Rollback'
  | 'ClearCiphertext'
  | 'Page'
  | 'PostRolloutChecks'
  | 'StatusUpdates';

export interface SynthesizedMachine {
  /** The Amazon States Language definition, every reference resolved to an ARN that ends in the name. */
  readonly definition: Readonly<Record<string, unknown>>;
}

export interface SynthesizedFunction {
  /** Directory of the bundle, absolute, which all functions share. */
  readonly directory: string;
  /** `<file without extension>.<export>`, e.g. `gate.handler`; the file is `<directory>/gate.mjs`. */
  readonly handler: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly timeoutSeconds: number;
}

export interface SynthesizedRollout {
  readonly machines: Readonly<Record<MachineName, SynthesizedMachine>>;
  /** Key: state name. In definitions: `arn:aws:lambda:us-east-1:123456789012:function:<state name>`. */
  readonly functions: Readonly<Record<string, SynthesizedFunction>>;
  /** What the handlers are told, in the bundle. */
  readonly settings: Settings;
  /** The CloudFormation template, as it would be deployed. */
  readonly template: Template;
}

interface Resource {
  readonly Type: string;
  readonly Properties?: Record<string, unknown>;
}

interface Template {
  readonly Resources: Readonly<Record<string, Resource>>;
}

const cdkJson = fileURLToPath(new URL('../cdk.json', import.meta.url));
const region = 'us-east-1';
const account = '123456789012';

/**
 * Synthesizes the app and reads machines and functions back from the template and its assets: what the rehearsal
 * runs is what would be deployed.
 *
 * In the definitions a task's Resource is `arn:aws:lambda:us-east-1:123456789012:function:<state name>`,
 * `arn:aws:states:::states:startExecution.sync:2` with Parameters.StateMachineArn
 * `arn:aws:states:us-east-1:123456789012:stateMachine:<machine name>`, `arn:aws:states:::lambda:invoke.waitForTaskToken`
 * with Parameters.FunctionName like the first, or `arn:aws:states:::sns:publish`.
 *
 * @param outdir of the cloud assembly; a temporary directory when not given
 */
export function synthesizeRollout(config: RolloutConfig, outdir?: string): SynthesizedRollout {
  const app = new App({
    // The feature flags of whoever deploys.
    context: (readJson(cdkJson) as { context: Record<string, unknown> }).context,
    analyticsReporting: false,
    // It takes seconds; `cdk synth` and `cdk deploy` validate, on every deployment.
    builtinCloudFormationValidation: false,
    ...(outdir === undefined ? {} : { outdir }),
  });
  const { stackName } = new EncryptionRolloutStack(app, config.stackName, { config });
  const assembly = app.synth();
  const stack = assembly.getStackByName(stackName);
  const template: Template = stack.template;
  const resources = Object.values(template.Resources);
  const resolve = resolver(template, namesOf(config).of(''));

  const machines = resources
    .filter(({ Type }) => Type === 'AWS::StepFunctions::StateMachine')
    .map(({ Properties = {} }) => {
      const definition = JSON.parse(String(resolve(Properties.DefinitionString)));
      return [resolve(Properties.StateMachineName), { definition }];
    });

  const assets = JSON.parse(readFileSync(join(assembly.directory, `${stack.id}.assets.json`), 'utf8'));
  const functions = resources
    .filter(({ Type }) => Type === 'AWS::Lambda::Function')
    .map(({ Properties = {} }) => {
      const [hash] = String((Properties.Code as { S3Key: string }).S3Key).split('.');
      const { Variables = {} } = Properties.Environment as { Variables?: Record<string, unknown> };
      return [
        resolve(Properties.FunctionName),
        {
          directory: join(assembly.directory, assets.files[hash as string].source.path),
          handler: Properties.Handler,
          environment: Object.fromEntries(
            Object.entries(Variables).map(([name, value]) => [name, String(resolve(value))]),
          ),
          timeoutSeconds: Properties.Timeout,
        },
      ];
    });
  const byName: SynthesizedRollout['functions'] = Object.fromEntries(functions);
  const told = join(byName.PrepareDatabase?.directory ?? '', settingsFile);
  return {
    machines: Object.fromEntries(machines),
    functions: byName,
    settings: Settings.parse(JSON.parse(readFileSync(told, 'utf8'))),
    template,
  };
}

/** Resolves what CloudFormation would, to names without the deployment's prefix and to well-formed ARNs. */
function resolver(template: Template, prefix: string): (value: unknown) => unknown {
  const short = (name: unknown) => String(name).replace(prefix, '');
  const pseudo: Record<string, string> = {
    'AWS::Partition': 'aws',
    'AWS::Region': region,
    'AWS::AccountId': account,
    'AWS::URLSuffix': 'amazonaws.com',
  };
  const arnOf = (logicalId: string): string => {
    const { Type, Properties = {} } = template.Resources[logicalId] ?? { Type: 'nothing' };
    const arn = (service: string, rest: string) => `arn:aws:${service}:${region}:${account}:${rest}`;
    switch (Type) {
      case 'AWS::Lambda::Function':
        return arn('lambda', `function:${short(Properties.FunctionName)}`);
      case 'AWS::Lambda::Version':
        return arnOf((Properties.FunctionName as { Ref: string }).Ref);
      case 'AWS::StepFunctions::StateMachine':
        return arn('states', `stateMachine:${short(Properties.StateMachineName)}`);
      case 'AWS::SNS::Topic':
        return arn('sns', short(Properties.TopicName));
      case 'AWS::IAM::Role':
        return `arn:aws:iam::${account}:role/${logicalId}`;
      case 'AWS::SecretsManager::Secret':
        return arn('secretsmanager', `secret:${logicalId}`);
      default:
        throw new Error(`${logicalId} is ${Type}: the synthesis has no ARN for it`);
    }
  };
  const resolve = (value: unknown): unknown => {
    if (typeof value === 'string')
      return (value.startsWith(prefix) ? short(value) : value).replace(
        `:stateMachine:${prefix}`,
        ':stateMachine:',
      );
    if (value === null || typeof value !== 'object') return value;
    const [[intrinsic, argument] = []] = Object.entries(value);
    switch (intrinsic) {
      case 'Ref':
        return pseudo[argument] ?? arnOf(argument);
      case 'Fn::GetAtt':
        return arnOf(argument[0]);
      case 'Fn::Join':
        return argument[1].map(resolve).join(argument[0]);
      default:
        throw new Error(`the synthesis cannot resolve ${intrinsic}`);
    }
  };
  return resolve;
}
