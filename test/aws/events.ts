/** Events as EventBridge delivers them, recorded from the documentation of Step Functions and CloudWatch. */

/** https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html */
export function executionEnded(executionArn: string, status: string) {
  const [, , , region, account, , machine, name] = executionArn.split(':');
  return {
    version: '0',
    id: '315c1398-40ff-a850-213b-158f73e60175',
    'detail-type': 'Step Functions Execution Status Change',
    source: 'aws.states',
    account,
    time: '2026-11-23T10:00:00Z',
    region,
    resources: [executionArn],
    detail: {
      executionArn,
      stateMachineArn: `arn:aws:states:${region}:${account}:stateMachine:${machine}`,
      name,
      status,
      startDate: 1_795_428_000_000,
      stopDate: 1_795_428_060_000,
      input: '{}',
      inputDetails: { included: true },
      output: null,
      outputDetails: null,
      error: null,
      cause: null,
    },
  };
}

/** https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch-and-eventbridge.html */
export function alarmWentOff(alarmName: string, value = 'ALARM') {
  return {
    version: '0',
    id: 'c4c1c1c9-6542-e61b-6ef0-8c4d36933a92',
    'detail-type': 'CloudWatch Alarm State Change',
    source: 'aws.cloudwatch',
    account: '000000000000',
    time: '2026-11-23T10:00:00Z',
    region: 'us-east-1',
    resources: [`arn:aws:cloudwatch:us-east-1:000000000000:alarm:${alarmName}`],
    detail: {
      alarmName,
      state: { value, reason: 'Threshold crossed', timestamp: '2026-11-23T10:00:00.000+0000' },
      previousState: { value: 'OK', timestamp: '2026-11-23T09:00:00.000+0000' },
      configuration: { metrics: [] },
    },
  };
}
