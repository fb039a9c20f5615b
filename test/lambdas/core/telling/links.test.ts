import { expect, test } from 'vitest';
import { deploymentLinks, executionLink } from '../../../../lambdas/core/telling/links.ts';

const arn = (partition: string, region: string) =>
  `arn:${partition}:states:${region}:123456789012:execution:Rollout-EncryptionRollout:one`;

test('console links lead to the partition', () => {
  expect(executionLink(arn('aws', 'eu-west-1'))).toBe(
    `https://eu-west-1.console.aws.amazon.com/states/home?region=eu-west-1#/v2/executions/details/${arn('aws', 'eu-west-1')}`,
  );
  expect(executionLink(arn('aws-cn', 'cn-north-1'))).toMatch(
    /^https:\/\/cn-north-1.console.amazonaws.cn\/states/,
  );
  expect(executionLink(arn('aws-us-gov', 'us-gov-west-1'))).toMatch(
    /^https:\/\/us-gov-west-1.console.amazonaws-us-gov.com\/states/,
  );
});

test('a deployment has a dashboard and a log', () => {
  expect(deploymentLinks(arn('aws', 'eu-west-1'), 'Clinic')).toEqual({
    dashboard:
      'https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1#dashboards/dashboard/Clinic',
    log: 'https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1#logsV2:log-groups/log-group/$252Fencryption-rollout$252FClinic',
  });
});
