/** Finds the deployed stack, and who asks, the way every AWS tool does: AWS_PROFILE, AWS_REGION, ~/.aws. */
import { readFileSync } from 'node:fs';
import { CloudFormationClient, DescribeStacksCommand } from '@aws-sdk/client-cloudformation';
import { LambdaClient } from '@aws-sdk/client-lambda';
import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { sentence } from '../../lambdas/core/gates/judgement.ts';
import { commandLine } from '../../lambdas/core/telling/hints.ts';
import { UsageError } from '../../terminal/connection.ts';
import { type RehearsalAddress, rehearsalFile } from '../../terminal/rehearsal-address.ts';

/** Options that every command against AWS has. */
export interface AwsOptions {
  readonly stack: string;
  readonly profile?: string;
  readonly region?: string;
  /** The one under way on this machine, in place of the stack. */
  readonly rehearsal?: true;
  /** stdout gets one JSON document, and nothing else. */
  readonly json?: true;
  readonly yes?: true;
}

export interface Deployment {
  readonly stack: string;
  readonly region: string;
  readonly account: string;
  /** ARN of the identity that the commands run as: what is recorded as `by`. */
  readonly caller: string;
  readonly stateMachineArn: string;
  readonly operateFunctionName: string;
  /** One for all calls: whoever watches asks every few seconds, over the connection that is there. */
  readonly lambda: LambdaClient;
  /** Runs on this machine, and has no console. */
  readonly isRehearsal?: true;
  /** All outputs of the stack. */
  readonly outputs: Readonly<Record<string, string>>;
  /** A command of `npm run rollout`, as it is typed in the same shell to reach the same stack. */
  commandLine(words: string): string;
}

/** `stack EncryptionRollout (account 123456789012, eu-west-1)` */
export function placeOf({
  stack,
  account,
  region,
  isRehearsal,
}: Pick<Deployment, 'stack' | 'account' | 'region' | 'isRehearsal'>): string {
  return isRehearsal ? 'rehearsal on this machine' : `stack ${stack} (account ${account}, ${region})`;
}

/**
 * Looks up the stack. From here on every client of the SDK in this process uses the profile and region asked for.
 * @throws UsageError when region, credentials or stack are missing
 */
export async function findDeployment(options: AwsOptions): Promise<Deployment> {
  const { stack, profile, region } = options;
  if (options.rehearsal) useRehearsal();
  else if (profile !== undefined) {
    process.env.AWS_PROFILE = profile;
    // Who names a profile means it, whatever the shell has set; as the AWS CLI has it.
    for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN'])
      delete process.env[name];
  }
  // The AWS CLI's own variable, which the SDK passes over.
  const inShell = process.env.AWS_REGION || process.env.AWS_DEFAULT_REGION;
  if (region ?? inShell) process.env.AWS_REGION = region ?? inShell;
  const sts = new STSClient();
  const inRegion = await sts.config.region().catch(() => {
    const given = region ?? inShell;
    throw new UsageError(
      `Found ${given ? JSON.stringify(given) : 'nothing'} as the AWS region, expected one like eu-west-1. Add --region, set AWS_REGION, or give your profile one (aws configure).`,
    );
  });
  const identity = await sts.send(new GetCallerIdentityCommand()).catch((error: Error) => {
    if (isRefusal(error) || error.name === 'CredentialsProviderError' || error.name === 'TokenProviderError')
      throw new UsageError(
        `Found no usable AWS credentials${profile === undefined ? '' : ` in the profile ${profile}`} (${error.message}), expected those of an operator. Log in (aws sso login), or name a profile with --profile or AWS_PROFILE.`,
      );
    throw options.rehearsal ? noRehearsal() : explainedAws(error);
  });
  const found = await new CloudFormationClient()
    .send(new DescribeStacksCommand({ StackName: stack }))
    .catch((error: Error) => {
      if (/does not exist/.test(error.message)) throw missing(stack, identity.Account, inRegion);
      throw explainedAws(error);
    });
  const outputs = Object.fromEntries(
    (found.Stacks?.[0]?.Outputs ?? []).map(({ OutputKey = '', OutputValue = '' }) => [
      OutputKey,
      OutputValue,
    ]),
  );
  const { StateMachineArn, OperateFunctionName } = outputs;
  if (!StateMachineArn || !OperateFunctionName)
    throw new UsageError(
      `Found the stack ${stack} (${found.Stacks?.[0]?.StackStatus ?? 'gone'}) without the outputs StateMachineArn and OperateFunctionName, expected a rollout as this version deploys it. Check --stack, or deploy again.`,
    );
  return {
    stack,
    region: inRegion,
    account: identity.Account ?? '',
    caller: identity.Arn ?? '',
    stateMachineArn: StateMachineArn,
    operateFunctionName: OperateFunctionName,
    lambda: new LambdaClient(),
    outputs,
    ...(options.rehearsal
      ? { isRehearsal: true, commandLine: (words) => `${commandLine({ stack }, words)} --rehearsal` }
      : { commandLine: (words) => commandLine({ stack, profile, region }, words) }),
  };
}

/** From here on every client of the SDK in this process speaks to the rehearsal. @throws UsageError when there is none */
function useRehearsal(): void {
  let address: RehearsalAddress;
  try {
    address = JSON.parse(readFileSync(rehearsalFile, 'utf8'));
  } catch {
    throw noRehearsal();
  }
  for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name];
  Object.assign(process.env, {
    AWS_ENDPOINT_URL: address.url,
    AWS_REGION: 'us-east-1',
    AWS_ACCESS_KEY_ID: address.accessKey,
    AWS_SECRET_ACCESS_KEY: 'rehearsal',
  });
}

function noRehearsal(): UsageError {
  return new UsageError(
    'Found no rehearsal under way in this directory, expected a checkout of the project with one. Begin it there, in another window: npm start -- --slowly',
  );
}

function missing(stack: string, account: string | undefined, region: string): UsageError {
  return new UsageError(
    `Found no stack ${stack} in account ${account}, ${region}, expected a deployed rollout. Name it with --stack (the setting stackName), or choose another --region or --profile.`,
  );
}

const refusals =
  /AccessDenied|NotAuthorized|UnrecognizedClient|InvalidClientTokenId|ExpiredToken|SignatureDoesNotMatch/;

function isRefusal({ name }: Error): boolean {
  return refusals.test(name);
}

/** What AWS refused, or could not be reached for, in words for the person who asked. Other errors pass as they are. */
export function explainedAws(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof UsageError) return error;
  if (isRefusal(error))
    return new UsageError(
      `AWS refused: ${sentence(error.message)}\nExpected the rights of an operator: docs/operator-guide.md#who-may-operate.`,
    );
  const { code } = error as { code?: string };
  if (/^E[A-Z_]+$/.test(code ?? '') || error.name === 'TimeoutError')
    return new UsageError(`Found no way to AWS (${error.message || code}). Check the network, and --region.`);
  return error;
}
