"""Few-shot classification of your own images, in folders <split>/<class>/<image>; splits: train, validation, test.

make submit JOB=image_folder ARGS="tasks.path=/data/birds tasks.ways=5 tasks.shots=1"
"""

from dataclasses import replace

from jobs import miniimagenet
from meta_service.tasks.image_folder import ImageFolder

job = replace(miniimagenet.job, name="image_folder", tasks=ImageFolder(ways=5, shots=1, query_shots=5))

space, tune = miniimagenet.space, miniimagenet.tune
