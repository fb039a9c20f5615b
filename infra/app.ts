/** Entry of the CDK CLI, see cdk.json. */
import { App, Validations } from 'aws-cdk-lib';
import { AwsSolutionsChecks } from 'cdk-nag';
import { ConfigurationError } from '../lambdas/core/plan/configuration-error.ts';
import { configOf, regionOf } from './config.ts';
import { EncryptionRolloutStack } from './stack.ts';

try {
  const app = new App();
  const config = configOf(app.node, console.error);
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  // Where the settings are; where they do not say, what the CDK's command line knows, which says us-east-1 when it knows none.
  const region = regionOf(config)?.region ?? process.env.CDK_DEFAULT_REGION;
  new EncryptionRolloutStack(app, config.stackName, {
    config,
    ...(region === undefined ? {} : { env: { region } }),
  });
  app.synth();
} catch (error) {
  if (!(error instanceof ConfigurationError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
