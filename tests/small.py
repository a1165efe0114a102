"""A run of seconds, the same in every test so that it compiles once."""

# Digits through a narrow net: 10 steps an epoch.
SMALL = (
    "--config.model.conv_features=(8,16,16,16,16)",
    "--config.model.fc_features=(32,32)",
    "--config.train_split=train[:320]",
    "--config.batch_size=32",
    "--config.num_epochs=4",
    "--config.validate_every_epochs=1",
    "--config.log_every_steps=4",
    "--config.checkpoint_every_steps=3",
    "--config.schedule.name=plateau",
    "--config.schedule.patience=2",
    "--config.final_views=('center',)",
)
