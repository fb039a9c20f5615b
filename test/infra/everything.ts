/** A configuration with everything on that can be on together, so that what is rarely asked for is checked as well. */
import { parseConfig } from '../../infra/config.ts';

const kmsKey = 'arn:aws:kms:us-east-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef';

export const everything = parseConfig(
  {
    stackName: 'Everything',
    vpcId: 'vpc-0123456789abcdef0',
    subnetIds: ['subnet-0123456789abcdef0', 'subnet-0123456789abcdef1'],
    securityGroupId: 'sg-0123456789abcdef0',
    createVpcEndpoints: true,
    database: { clusterIdentifier: 'main' },
    databaseAuthentication: 'iam',
    databaseHost: 'main.cluster-abc.us-east-1.rds.amazonaws.com',
    databaseUser: 'rollout',
    databaseResourceId: 'cluster-ABCDEFGHIJKL01234',
    takeBackup: true,
    keySecretArn: 'arn:aws:secretsmanager:us-east-1:123456789012:secret:rollout-key-AbCdEf',
    keySecretKmsKeyArn: kmsKey,
    onCall: ['on-call@example.com'],
    updates: ['team@example.com'],
    stakeholders: {
      executives: ['chief@example.com'],
      security: ['security@example.com'],
      support: ['help@example.com'],
      incidents: ['letters@example.com'],
    },
    slack: { workspaceId: 'T0123ABCD', channelId: 'C0123ABCD', operate: true },
    // More than one rule takes.
    customerAlarms: Array.from({ length: 40 }, (_, n) => `appointments-api-target-response-time-${n}`),
    approvals: [3, 4],
    offPeak: { timeZone: 'Europe/Berlin', windows: [{ days: ['Mon'], from: '20:00', to: '06:00' }] },
    tags: { CostCenter: '4711' },
    runbookUrl: 'https://wiki.example.com/runbook',
  },
  'everything',
);
