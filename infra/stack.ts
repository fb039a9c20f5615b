import { readFileSync } from 'node:fs';
import { Annotations, CfnOutput, RemovalPolicy, Stack, type StackProps, Tags, Token } from 'aws-cdk-lib';
import { LogGroup, RetentionDays } from 'aws-cdk-lib/aws-logs';
import { Secret } from 'aws-cdk-lib/aws-secretsmanager';
import type { Construct } from 'constructs';
import { tablesInWords } from '../lambdas/core/gates/judgement.ts';
import { ConfigurationError } from '../lambdas/core/plan/configuration-error.ts';
import { planOf, Settings, targetName } from '../lambdas/core/plan/settings.ts';
import { PostRolloutMachine } from './afterwards/post-rollout-machine.ts';
import { CheckSchedules } from './afterwards/schedules.ts';
import { ownTag, type RolloutConfig, regionOf } from './config.ts';
import { EncryptBatchesMachine } from './encryption/encrypt-batches-machine.ts';
import { FinalAuditMachine } from './encryption/final-audit-machine.ts';
import { Functions } from './functions/functions.ts';
import type { ReadableSecret } from './functions/permissions.ts';
import { HoldMachine } from './gates/hold-machine.ts';
import { Alarms } from './monitoring/alarms.ts';
import { RolloutDashboard } from './monitoring/dashboard.ts';
import { Monitoring } from './monitoring/monitoring.ts';
import { namesOf } from './names.ts';
import { PhaseMachine } from './phases/phase-machine.ts';
import { PreflightMachine } from './preflight/preflight-machine.ts';
import { TakeBackupMachine } from './preflight/take-backup-machine.ts';
import { SoakMachine } from './pressure/soak-machine.ts';
import { RolloutMachine } from './runs/rollout-machine.ts';
import { ClearCiphertextMachine } from './stopping/clear-ciphertext-machine.ts';
import { RollbackMachine } from './stopping/rollback-machine.ts';
import { Stopping } from './stopping/stop-from-outside.ts';
import { acknowledgeFindings } from './surroundings/acknowledgements.ts';
import { DemoSurroundings } from './surroundings/demo.ts';
import { Endpoints } from './surroundings/endpoints.ts';
import { GivenSurroundings, isOnlyInVpc } from './surroundings/surroundings.ts';
import { Chat } from './telling/chat.ts';
import { Notifications } from './telling/notifications.ts';
import { PageMachine } from './telling/page-machine.ts';
import { StatusUpdates } from './telling/status-updates.ts';

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));

const everythingButHexDigits = Array.from({ length: 94 }, (_, index) => String.fromCharCode(33 + index))
  .join('')
  .replace(/[0-9a-f]/g, '');

interface EncryptionRolloutStackProps extends StackProps {
  readonly config: RolloutConfig;
}

/** Rollouts of the tables of one database: machines, functions, alarms and who is told. */
export class EncryptionRolloutStack extends Stack {
  constructor(scope: Construct, id: string, { config, ...props }: EncryptionRolloutStackProps) {
    super(scope, id, props);
    const placed = regionOf(config);
    if (placed !== undefined && !Token.isUnresolved(this.region) && placed.region !== this.region)
      throw new ConfigurationError(
        `${placed.setting}: found one in ${placed.region}, expected ${this.region}, where this is deployed. Set AWS_REGION, or the profile's region, to ${placed.region}, or name what is in ${this.region}`,
      );
    if (config.runbookUrl === undefined)
      Annotations.of(this).addInfo(
        'Found no runbookUrl: pages will not link the runbook. Publish docs/runbook.md where a phone opens it, and say where.',
      );
    const plan = planOf(config);
    const names = namesOf(config);
    Tags.of(this).add(ownTag, 'encryption-rollout');
    for (const [name, value] of Object.entries(config.tags)) Tags.of(this).add(name, value);
    // One log for all handlers: a run reads from top to bottom.
    const logGroup = new LogGroup(this, 'Log', {
      logGroupName: `/encryption-rollout/${config.stackName}`,
      retention: RetentionDays.ONE_YEAR,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    const surroundings = config.demo
      ? new DemoSurroundings(this, 'Demo', { config, names, logGroup })
      : new GivenSurroundings(this, 'Surroundings', config);
    if (!config.demo && config.createVpcEndpoints) new Endpoints(this, 'Endpoints', config);
    const settings = Settings.parse({
      version,
      targets: config.targets,
      database: surroundings.database,
      ...(config.demo ? {} : { databaseAuthorities: config.databaseAuthorities }),
      customerAlarms: config.customerAlarms,
      ownAlarms: names.alarms,
      dashboard: names.dashboard,
      runbookUrl: config.runbookUrl,
      attestations: config.attestations,
      takeBackup: config.takeBackup,
      approvals: config.approvals,
      offPeak: config.offPeak,
      acknowledgedTriggers: config.acknowledgedTriggers,
      keyTable: config.keyTable,
      plan: config.plan,
    });

    const notifications = new Notifications(this, 'Notifications', {
      names,
      onCall: config.onCall,
      tomorrow: config.tomorrow ?? config.onCall,
      notes: config.notes ?? config.onCall,
      updates: config.updates,
      stakeholders: config.stakeholders,
    });
    const { topic } = notifications;
    const topics = { page: topic, tomorrow: notifications.tomorrow, note: notifications.notes };
    const checks = new CheckSchedules(this, 'Checks', { names });
    const functions = new Functions(this, 'Functions', {
      checks,
      config,
      names,
      settings,
      surroundings,
      keySecret: this.keySecret(config),
      logGroup,
      topic,
    });
    if (config.slack !== undefined)
      new Chat(this, 'Chat', {
        names,
        slack: config.slack,
        notifications,
        topics: [...Object.values(topics), notifications.updates],
        operateByButton: functions.named('OperateByButton'),
        logGroup,
        network: isOnlyInVpc(config) ? surroundings.network : undefined,
      });

    const shared = { names, functions, topics };
    const { machine: hold } = new HoldMachine(this, 'Hold', { ...shared, plan });
    const { machine: encryptBatches } = new EncryptBatchesMachine(this, 'EncryptBatches', {
      ...shared,
      plan,
      hold,
    });
    const { machine: soak } = new SoakMachine(this, 'Soak', { ...shared, plan, hold });
    const { machine: finalAudit } = new FinalAuditMachine(this, 'FinalAudit', { ...shared, plan, hold });
    const { machine: takeBackup } = new TakeBackupMachine(this, 'TakeBackup', shared);
    const { machine: preflight } = new PreflightMachine(this, 'Preflight', { ...shared, plan, hold });
    const { machine: phase } = new PhaseMachine(this, 'Phase', {
      ...shared,
      plan,
      encryptBatches,
      soak,
      finalAudit,
      hold,
    });
    const { machine: rollback } = new RollbackMachine(this, 'Rollback', {
      ...shared,
      targets: config.targets,
    });
    const { machine: page } = new PageMachine(this, 'Page', shared);
    const { machine: clearCiphertext } = new ClearCiphertextMachine(this, 'ClearCiphertext', shared);
    const { machine: rollout } = new RolloutMachine(this, 'EncryptionRollout', {
      ...shared,
      plan,
      targets: config.targets,
      takeBackup,
      preflight,
      phase,
      rollback,
      approvals: config.approvals,
    });

    const { updates, security } = notifications;
    const { machine: postRolloutChecks } = new PostRolloutMachine(this, 'PostRolloutChecks', {
      ...shared,
      updates,
    });
    const { machine: statusUpdates } = new StatusUpdates(this, 'StatusUpdates', {
      ...shared,
      updates,
      security,
      schedules: checks.group,
    });

    for (const publisher of [
      hold,
      rollback,
      rollout,
      page,
      clearCiphertext,
      postRolloutChecks,
      statusUpdates,
    ])
      notifications.grantEncryption(publisher);
    notifications.tellOf(rollout, rollback);

    const alarms = new Alarms(this, 'Alarms', {
      names,
      plan,
      topics,
      listeners: notifications.support === undefined ? [] : [notifications.support],
      rollout,
      rollback,
      postRolloutChecks,
      statusUpdates,
      page,
      schedules: checks.group,
      stopRollout: functions.named('StopRollout'),
    });
    new RolloutDashboard(this, 'Dashboard', {
      names,
      alarms,
      plan,
      database: surroundings.database,
      rollout,
      operateByButton: functions.named('OperateByButton'),
      customerAlarms: config.customerAlarms,
      runbookUrl: config.runbookUrl,
    });
    new Monitoring(this, 'Monitoring', {
      scheduleName: names.of('Monitor'),
      ruleName: names.of('ServerIsBack'),
      database: surroundings.database,
      monitor: functions.named('Monitor'),
    });

    new Stopping(this, 'Stopping', {
      names,
      stopRollout: functions.named('StopRollout'),
      rollout,
      rollback,
      alarms: [...names.heardAlarms, ...config.customerAlarms],
    });

    new CfnOutput(this, 'Version', { description: 'Of what is deployed', value: version });
    new CfnOutput(this, 'StateMachineArn', {
      description: 'Start an execution of this to start or to resume the rollout',
      value: rollout.stateMachineArn,
    });
    new CfnOutput(this, 'OperateFunctionName', {
      description: 'What `npm run rollout` asks',
      value: functions.named('Operate').functionName,
    });
    new CfnOutput(this, 'UpdatesTopicArn', {
      description: 'Where status updates and the reports of the 30 days after are sent',
      value: notifications.updates.topicArn,
    });
    new CfnOutput(this, 'OnCallTopicArn', {
      description: 'What wakes somebody: stops, questions, alarms that cannot wait',
      value: topic.topicArn,
    });
    new CfnOutput(this, 'TomorrowTopicArn', {
      description: 'What can wait until morning',
      value: notifications.tomorrow.topicArn,
    });
    new CfnOutput(this, 'NotesTopicArn', {
      description: 'Ends of rollouts, and what else nobody needs to act on',
      value: notifications.notes.topicArn,
    });
    // What is restored, when somebody must: `npm run rollout -- rollback --option restore`.
    const { instanceIdentifier, clusterIdentifier } = surroundings.database;
    if (instanceIdentifier !== undefined)
      new CfnOutput(this, 'DatabaseInstance', { description: 'The database', value: instanceIdentifier });
    if (clusterIdentifier !== undefined)
      new CfnOutput(this, 'DatabaseCluster', { description: 'The database', value: clusterIdentifier });
    acknowledgeFindings(this, functions);
  }

  private keySecret(config: RolloutConfig): ReadableSecret {
    if (config.keySecretArn !== undefined)
      return Secret.fromSecretCompleteArn(this, 'Key', config.keySecretArn);
    const secret = new Secret(this, 'Key', {
      description: `Encryption key of ${tablesInWords(config.targets.map(targetName))}. Without it the ciphertext is lost.`,
      generateSecretString: {
        secretStringTemplate: JSON.stringify({ number: 1 }),
        generateStringKey: 'key',
        // 64 hex digits, 32 bytes. Secrets Manager can only be told what to leave out.
        passwordLength: 64,
        requireEachIncludedType: false,
        excludeUppercase: true,
        excludePunctuation: true,
        excludeCharacters: everythingButHexDigits,
      },
      // Deleting the stack must never delete the only key to the data. A first deployment that fails has encrypted none.
      removalPolicy: RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
    });
    new CfnOutput(this, 'KeySecretArn', {
      description: 'The encryption key. It outlives the stack.',
      value: secret.secretArn,
    });
    return secret;
  }
}
