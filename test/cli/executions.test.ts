import { expect, test } from 'vitest';
import { consoleLink } from '../../cli/aws/executions.ts';

test('console links lead to the partition', () => {
  const arn = (partition: string, region: string) =>
    `arn:${partition}:states:${region}:123456789012:execution:Rollout-EncryptionRollout:one`;
  expect(consoleLink(arn('aws', 'eu-west-1'))).toBe(
    `https://eu-west-1.console.aws.amazon.com/states/home?region=eu-west-1#/v2/executions/details/${arn('aws', 'eu-west-1')}`,
  );
  expect(consoleLink(arn('aws-cn', 'cn-north-1'))).toMatch(
    /^https:\/\/cn-north-1.console.amazonaws.cn\/states/,
  );
  expect(consoleLink(arn('aws-us-gov', 'us-gov-west-1'))).toMatch(
    /^https:\/\/us-gov-west-1.console.amazonaws-us-gov.com\/states/,
  );
});
