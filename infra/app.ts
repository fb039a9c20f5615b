/** Entry of the CDK CLI, see cdk.json. */
import { App, Validations } from 'aws-cdk-lib';
import { AwsSolutionsChecks } from 'cdk-nag';
import { ConfigurationError } from '../lambdas/core/plan/configuration-error.ts';
import { configOf } from './config.ts';
import { EncryptionRolloutStack } from './stack.ts';

try {
  const app = new App();
  const config = configOf(app.node, console.error);
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  // In China services have names of their own, so the template is of the region; elsewhere it is of any.
  const region = process.env.CDK_DEFAULT_REGION;
  new EncryptionRolloutStack(app, config.stackName, {
    config,
    ...(region?.startsWith('cn-') ? { env: { region } } : {}),
  });
  app.synth();
} catch (error) {
  if (!(error instanceof ConfigurationError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
