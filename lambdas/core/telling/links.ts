/** Pages of the AWS console that a person opens on a phone, for a message. Pure. */

/** Where the deployment is, as the ARN of any of its executions says it. */
interface Place {
  readonly partition: string;
  readonly region: string;
}

function placeOf(arn: string): Place {
  const [, partition = '', , region = ''] = arn.split(':');
  return { partition, region };
}

/** Of those partitions whose console is not at aws.amazon.com. */
const domains: Readonly<Record<string, string>> = {
  'aws-us-gov': 'amazonaws-us-gov.com',
  'aws-cn': 'amazonaws.cn',
};

function page(arn: string, service: string, place: string): string {
  const { partition, region } = placeOf(arn);
  return `https://${region}.console.${domains[partition] ?? 'aws.amazon.com'}/${service}/home?region=${region}#${place}`;
}

/** An execution in the console. */
export function executionLink(executionArn: string): string {
  return page(executionArn, 'states', `/v2/executions/details/${executionArn}`);
}

/**
 * Where the report of a run that has ended as it was to is found, and how it is made a page.
 * @param execution the ARN of the one whose output has it
 * @param report empty where it could not be written
 */
export function reportLinks(
  execution: string,
  report: string,
  { commandLine }: { commandLine(words: string): string },
): string {
  return `${report === '' ? 'The report could not be written there, the execution' : 'The report is in the output of the execution'}: ${executionLink(execution)}\nAs a page to hand over: ${commandLine('report --html report.html')}`;
}

/** The console writes a path within a path with dollars. */
const within = (path: string) => encodeURIComponent(encodeURIComponent(path)).replaceAll('%', '$');

/**
 * Dashboard and log of a deployment.
 * @param arn of any of its executions
 */
export function deploymentLinks(
  arn: string,
  stack: string,
): { readonly dashboard: string; readonly log: string } {
  return {
    dashboard: page(arn, 'cloudwatch', `dashboards/dashboard/${encodeURIComponent(stack)}`),
    log: page(arn, 'cloudwatch', `logsV2:log-groups/log-group/${within(`/encryption-rollout/${stack}`)}`),
  };
}
